//! The commands: each opens what it needs, does its work, prints, and says with its exit code what happened.

use std::io::{BufRead, IsTerminal, Read, Write};
use std::time::Duration;

use lighter_protocol::{PeerId, UnixTime};
use lighter_shell::{Exit, logs, stop};
use lighter_store::Store;
use lighter_transport::location::api::AcceptanceChange;
use serde::Serialize;
use serde_json::json;
use tokio::time::sleep;
use zeroize::Zeroizing;

use crate::access::Access;
use crate::address_books::book::Book;
use crate::address_books::recipients::{Recipient, Recipients, Strictness, resolve};
use crate::address_books::{self, BooksView, carddav};
use crate::agent::Agent;
use crate::cli::{CardDavCommand, Cli, Command, KeyCommand, LimitArgs, OfArgs, SendArgs, SetupArgs};
use crate::config::{Config, Paths};
use crate::failure::Failure;
use crate::guest::by_hand::{HandLimit, Pause, Wish};
use crate::key::{KeyPlace, KeyView, Keys, rotation};
use crate::limits::{BEGIN_AGAIN, BEGIN_TRIES_MAX, PASSWORD_LEN_MAX};
use crate::progress::SendView;
use crate::send::SendRequest;
use crate::send::unreachable::Wanted;
use crate::setup::SetupRequest;
use crate::views::{List, harmless};
use crate::{
    acceptance, get, guest, hosted, key, lookup, offers, registration, remove, restore, send, setup, status,
    submission,
};

/// Runs a command to its end.
pub fn run(cli: Cli) -> Exit {
    match &cli.command {
        Command::Run => logs::init(),
        _ => logs::init_quiet(),
    }
    // One provider for all of TLS; a second call, in a test, changes nothing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return told(&Failure::failed(error)),
    };
    let done = runtime.block_on(command(cli));
    // What blocks on the disk ends by itself; nobody waits for a prompt of the keyring.
    runtime.shutdown_background();
    match done {
        Ok(exit) => exit,
        Err(failure) => told(&failure),
    }
}

#[expect(clippy::print_stderr, reason = "a command tells its user why it failed")]
fn told(failure: &Failure) -> Exit {
    eprintln!("lighter-agent: {}", harmless(&failure.to_string()));
    failure.exit()
}

async fn command(cli: Cli) -> Result<Exit, Failure> {
    let paths = Paths::find(cli.config.as_deref(), cli.data.as_deref());
    match cli.command {
        // Needs no configuration, and no home folder.
        Command::Restore(args) => restore::run(args, paths).await,
        Command::Setup(args) => set_up(args, &paths?, cli.json).await,
        Command::Run => serve(&paths?).await,
        Command::Status(of) => {
            let paths = paths?;
            let config = Config::read(&paths.config)?;
            let status = match Access::open(&config, &paths).await? {
                Access::Running(mut client) => client.status(of.mailbox).await?,
                Access::Alone(store) => {
                    let identity = key::load(&config.key, &paths).await?;
                    let limits = guest::say_alone(&config.guest, &paths, Wish::Show)?;
                    status::of_store(&config, identity.peer(), limits, &store)?
                }
            };
            print(&status, cli.json)
        }
        Command::List(of) => {
            let paths = paths?;
            let config = Config::read(&paths.config)?;
            let list = match Access::open(&config, &paths).await? {
                Access::Running(mut client) => client.list(of.mailbox).await?,
                Access::Alone(store) => List::of(&store, of.mailbox.as_ref())?,
            };
            print(&list, cli.json)
        }
        Command::Lookup { mailbox } => {
            let paths = paths?;
            let config = Config::read(&paths.config)?;
            let found = match Access::open(&config, &paths).await? {
                Access::Running(mut client) => client.lookup(mailbox).await?,
                Access::Alone(store) => {
                    let agent = start(config, &paths, store).await?;
                    let found = lookup::ask(agent.shared(), mailbox).await;
                    agent.stop().await;
                    found?
                }
            };
            print(&found, cli.json)
        }
        Command::Cancel { delivery, whole } => {
            let paths = paths?;
            let config = Config::read(&paths.config)?;
            let cancelled = match Access::open(&config, &paths).await? {
                Access::Running(mut client) => client.cancel(delivery, whole).await?,
                Access::Alone(store) => {
                    let agent = start(config, &paths, store).await?;
                    let cancelled = offers::cancel(agent.shared(), delivery, whole).await;
                    agent.stop().await;
                    cancelled?
                }
            };
            print(&cancelled, cli.json)
        }
        Command::Groups { name } => {
            let paths = paths?;
            let config = Config::read(&paths.config)?;
            let folder = paths.address_books();
            let books = read_books(config, paths).await?;
            let view = BooksView::of(folder, &books, name.as_deref()).map_err(Failure::failed)?;
            print(&view, cli.json)
        }
        Command::CardDav(command) => carddav(command, &paths?, cli.json).await,
        Command::Policy { of, policy } => {
            choose(AcceptanceChange { policy, ..AcceptanceChange::default() }, of, &paths?, cli.json).await
        }
        Command::Accept { of, mailboxes: accept } => {
            choose(AcceptanceChange { accept, ..AcceptanceChange::default() }, of, &paths?, cli.json).await
        }
        Command::Block { of, mailboxes: block } => {
            choose(AcceptanceChange { block, ..AcceptanceChange::default() }, of, &paths?, cli.json).await
        }
        Command::Forget { of, mailboxes: forget } => {
            choose(AcceptanceChange { forget, ..AcceptanceChange::default() }, of, &paths?, cli.json).await
        }
        Command::Primary { peer } => of_stores(StoresQuestion::Prefer(peer), &paths?, cli.json).await,
        Command::Confirm { peer } => of_stores(StoresQuestion::Confirm(peer), &paths?, cli.json).await,
        Command::Key(command) => keys(command, &paths?, cli.json).await,
        Command::Send(args) => mail(args, &paths?, cli.json).await,
        Command::Get(args) => get::run(args, &paths?, cli.json).await,
        Command::Remove { mailbox: Some(mailbox), .. } => {
            let paths = paths?;
            let config = Config::read(&paths.config)?;
            let json = cli.json;
            match Access::open(&config, &paths).await? {
                Access::Running(mut client) => {
                    client.remove_all(mailbox, |removed| print(&removed, json).map(drop)).await?;
                }
                // Whether it is served still, only the agent that runs knows.
                Access::Alone(_) => {
                    return Err(Failure::wrong_use("`remove --mailbox` needs the agent: start it first"));
                }
            }
            Ok(Exit::Done)
        }
        Command::Remove { deliveries, .. } => {
            let paths = paths?;
            let config = Config::read(&paths.config)?;
            let mut access = Access::open(&config, &paths).await?;
            for delivery in deliveries {
                let removed = match &mut access {
                    Access::Running(client) => client.remove(delivery).await?,
                    Access::Alone(store) => remove::remove(store, delivery)?,
                };
                print(&removed, cli.json)?;
            }
            Ok(Exit::Done)
        }
        Command::Limit(LimitArgs { off: true, .. }) => limits(Wish::Unlimit, &paths?, cli.json).await,
        Command::Limit(LimitArgs { down: None, up: None, .. }) => limits(Wish::Show, &paths?, cli.json).await,
        Command::Limit(LimitArgs { down, up, time, .. }) => {
            let limit = HandLimit { download: down, upload: up, until: until(time) };
            limits(Wish::Limit(limit), &paths?, cli.json).await
        }
        Command::Pause { time, everything } => {
            limits(Wish::Pause(Pause { until: until(time), everything }), &paths?, cli.json).await
        }
        Command::Resume => limits(Wish::Resume, &paths?, cli.json).await,
    }
}

fn until(time: Option<Duration>) -> Option<UnixTime> {
    time.map(|time| UnixTime::now().plus(time))
}

/// `limit`, `pause` and `resume`: all show what holds afterwards.
async fn limits(wish: Wish, paths: &Paths, is_json: bool) -> Result<Exit, Failure> {
    let config = Config::read(&paths.config)?;
    let limits = match Access::open(&config, paths).await? {
        Access::Running(mut client) => client.limits(wish).await?,
        // The store is kept meanwhile, so that no agent starts beside.
        Access::Alone(_store) => guest::say_alone(&config.guest, paths, wish)?,
    };
    print(&limits, is_json)
}

/// `policy`, `accept`, `block` and `forget`: all show the whole choice afterwards.
async fn choose(change: AcceptanceChange, of: OfArgs, paths: &Paths, is_json: bool) -> Result<Exit, Failure> {
    let config = Config::read(&paths.config)?;
    let change = AcceptanceChange { sender: of.mailbox, ..change };
    let chosen = match Access::open(&config, paths).await? {
        Access::Running(mut client) => client.choose(change).await?,
        Access::Alone(store) => {
            let agent = start(config, paths, store).await?;
            let chosen = acceptance::change(agent.shared(), change).await;
            agent.stop().await;
            chosen?
        }
    };
    print(&chosen, is_json)
}

async fn set_up(args: SetupArgs, paths: &Paths, is_json: bool) -> Result<Exit, Failure> {
    let request = SetupRequest {
        mailbox: args.mailbox,
        location: args.location,
        ca_file: args.ca_file,
        token: args.token,
        smtp: args.smtp,
        submission: args.submission,
        key_file: args.key_file,
    };
    print(&setup::run(request, paths).await?, is_json)
}

/// What the user says of the mailbox's stores.
enum StoresQuestion {
    Prefer(Option<PeerId>),
    Confirm(PeerId),
}

/// `primary` and `confirm`: both show how things stand afterwards.
async fn of_stores(question: StoresQuestion, paths: &Paths, is_json: bool) -> Result<Exit, Failure> {
    let config = Config::read(&paths.config)?;
    let status = match Access::open(&config, paths).await? {
        Access::Running(mut client) => {
            match question {
                StoresQuestion::Prefer(peer) => client.prefer(peer.map(|peer| peer.to_string())).await?,
                StoresQuestion::Confirm(peer) => client.confirm(peer.to_string()).await?,
            }
            client.status(None).await?
        }
        Access::Alone(store) => {
            let agent = start(config, paths, store).await?;
            let said = match question {
                StoresQuestion::Prefer(peer) => hosted::prefer(agent.shared(), peer).await,
                StoresQuestion::Confirm(peer) => hosted::confirm(agent.shared(), peer).await,
            };
            let status = status::of_running(agent.shared(), None).await;
            agent.stop().await;
            said?;
            status?
        }
    };
    print(&status, is_json)
}

/// `key show` and `key rotate`.
async fn keys(command: KeyCommand, paths: &Paths, is_json: bool) -> Result<Exit, Failure> {
    let config = Config::read(&paths.config)?;
    let rotate = command == KeyCommand::Rotate;
    let view = match Access::open(&config, paths).await? {
        Access::Running(mut client) => client.key(rotate).await?,
        Access::Alone(store) if rotate => {
            let agent = start(config, paths, store).await?;
            let rotated = rotation::rotate(agent.shared()).await;
            agent.stop().await;
            rotated?
        }
        Access::Alone(_) => KeyView::of(&KeyPlace::of(&config.key, paths)).await?,
    };
    print(&view, is_json)
}

/// `run`: until it is told to stop. With another key it is another peer: then all of it begins anew.
async fn serve(paths: &Paths) -> Result<Exit, Failure> {
    let stop = stop::requested()?;
    tokio::pin!(stop);
    let mut agent = begin(paths).await?;
    loop {
        let is_over = tokio::select! {
            () = &mut stop => true,
            () = agent.shared().key_changed.cancelled() => false,
        };
        agent.stop().await;
        if is_over {
            return Ok(Exit::Done);
        }
        agent = begin_again(paths).await?;
    }
}

/// Starts the agent once more: what is left of the one before may hold its store and its ports for a moment.
async fn begin_again(paths: &Paths) -> Result<Agent, Failure> {
    for _ in 1..BEGIN_TRIES_MAX {
        match begin(paths).await {
            Ok(agent) => return Ok(agent),
            Err(failure) => tracing::info!(%failure, "not started anew yet"),
        }
        sleep(BEGIN_AGAIN).await;
    }
    begin(paths).await
}

/// Starts the agent with everything that is set.
async fn begin(paths: &Paths) -> Result<Agent, Failure> {
    let config = Config::read(&paths.config)?;
    if config.hosted.is_some() && (config.submission.listen.is_some() || config.outgoing.listen.is_some()) {
        return Err(Failure::wrong_use(
            "[hosted] beside [submission] or [outgoing] in one agent: a hosted store is an agent of its own",
        ));
    }
    paths.make_data()?;
    let keys = Keys::load(&config.key, paths).await?;
    let store = Access::take(&config, paths).await?;
    let control = paths.control();
    let outbox = paths.outbox(&config.outbox);
    let submission = submission::Listener::bind(&config, paths).await?;
    let mut agent = Agent::start(config, keys, store, Some(&control)).await?;
    agent.follow(paths.config.clone());
    agent.finish_rotation();
    if let Some(outbox) = outbox {
        agent.watch(outbox);
    }
    let mut addresses = json!({ "quic": registration::addresses(agent.shared()), "control": control });
    agent.fetch_address_books(paths.clone());
    if let Some(submission) = submission {
        addresses[submission.name()] = submission.address().to_string().into();
        agent.take_submissions(submission);
    }
    lighter_shell::ready(&paths.data, &addresses)?;
    Ok(agent)
}

/// An agent for one command, where none runs.
pub(crate) async fn start(config: Config, paths: &Paths, store: Store) -> Result<Agent, Failure> {
    let keys = Keys::load(&config.key, paths).await?;
    Ok(Agent::start(config, keys, store, Some(&paths.control())).await?)
}

async fn mail(args: SendArgs, paths: &Paths, is_json: bool) -> Result<Exit, Failure> {
    let config = Config::read(&paths.config)?;
    let recipients = recipients(&args, &config, paths).await?;
    let request = tokio::task::spawn_blocking(move || request(args, recipients));
    let request = request.await.map_err(Failure::failed)??;
    match Access::open(&config, paths).await? {
        Access::Running(mut client) => {
            let mut view = SendView::new(is_json, true);
            client.send(request, |event| view.show(&event)).await?;
            Ok(view.end())
        }
        Access::Alone(store) => {
            let agent = start(config, paths, store).await?;
            let mut view = SendView::new(is_json, false);
            let sent = send_alone(&agent, request, &mut view).await;
            agent.stop().await;
            sent?;
            Ok(view.end())
        }
    }
}

async fn send_alone(agent: &Agent, request: SendRequest, view: &mut SendView) -> Result<(), Failure> {
    // Nobody can be looked up before the session is there; without one, the message goes whole (DESIGN §3 rule 5).
    if let Err(why) = lookup::session(agent.shared()).await {
        tracing::warn!(%why, "recipients cannot be looked up");
    }
    let (events, mut told) = tokio::sync::mpsc::channel(send::EVENTS_MAX);
    let sending = tokio::spawn(send::run(agent.shared().clone(), request, events));
    while let Some(event) = told.recv().await {
        view.show(&event);
    }
    sending.await.map_err(Failure::failed)?
}

/// Whom the message goes to: groups are no more than their members, before anything else is decided (SPEC A11).
#[expect(clippy::print_stderr, reason = "a command tells its user whom it leaves out")]
async fn recipients(args: &SendArgs, config: &Config, paths: &Paths) -> Result<Recipients, Failure> {
    let is_group = |recipient: &Recipient| matches!(recipient, Recipient::Group(_));
    let books = if args.to.iter().chain(&args.cc).any(is_group) {
        read_books(config.clone(), paths.clone()).await?
    } else {
        Vec::new()
    };
    let strictness = if args.skip_broken { Strictness::LeaveOut } else { Strictness::Strict };
    let recipients = resolve(&books, &args.to, &args.cc, strictness).map_err(Failure::wrong_use)?;
    for left_out in &recipients.left_out {
        eprintln!("lighter-agent: left out: {}", harmless(&left_out.to_string()));
    }
    Ok(recipients)
}

/// The address books; those on servers as fresh as the configuration wants them, where that can be had.
async fn read_books(config: Config, paths: Paths) -> Result<Vec<Book>, Failure> {
    carddav::freshen(&config, &paths).await;
    let books = tokio::task::spawn_blocking(move || address_books::read(&config, &paths));
    books.await.map_err(Failure::failed)
}

async fn carddav(command: CardDavCommand, paths: &Paths, is_json: bool) -> Result<Exit, Failure> {
    let config = Config::read(&paths.config)?;
    match command {
        CardDavCommand::Login { name } => {
            let password = tokio::task::spawn_blocking(password).await.map_err(Failure::failed)??;
            print(&carddav::login(&config, paths, &name, password).await?, is_json)
        }
        CardDavCommand::Refresh { name } => {
            let (view, failure) = carddav::refresh(&config, paths, name.as_deref()).await?;
            let exit = print(&view, is_json)?;
            failure.map_or(Ok(exit), Err)
        }
    }
}

/// A password: asked for where there is a terminal, which does not show it, else the first line on standard input.
fn password() -> Result<Zeroizing<String>, Failure> {
    let read = if std::io::stdin().is_terminal() {
        rpassword::prompt_password("Password: ")
    } else {
        let mut line = String::new();
        let read = std::io::stdin().lock().take(PASSWORD_LEN_MAX).read_line(&mut line);
        read.map(|_| line)
    };
    let line = read.map(Zeroizing::new).map_err(|error| Failure::failed(error).when("the password"))?;
    match line.trim_end_matches(['\r', '\n']) {
        "" => Err(Failure::wrong_use("no password was given")),
        password => Ok(Zeroizing::new(password.to_owned())),
    }
}

/// The message as it was asked for: paths made absolute, since a running agent has another working folder.
fn request(args: SendArgs, recipients: Recipients) -> Result<SendRequest, Failure> {
    let mut body = args.body;
    if body == "-" {
        body.clear();
        let mut input = std::io::stdin().lock().take(crate::limits::BODY_LEN_MAX + 1);
        input
            .read_to_string(&mut body)
            .map_err(|error| Failure::failed(error).when("the text on standard input"))?;
    }
    let absolute = |path: &std::path::PathBuf| {
        std::fs::canonicalize(path).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))
    };
    let files = args.files.iter().map(absolute).collect::<Result<_, _>>()?;
    let wanted = Wanted { unreachable: args.unreachable, retry_hours: args.retry_hours };
    Ok(SendRequest { to: recipients.to, cc: recipients.cc, subject: args.subject, body, files, wanted })
}

/// Prints an answer, for people or for scripts.
pub(crate) fn print(value: &(impl Serialize + std::fmt::Display), is_json: bool) -> Result<Exit, Failure> {
    let mut out = std::io::stdout().lock();
    let text = if is_json {
        let mut text = serde_json::to_string_pretty(value).map_err(Failure::failed)?;
        text.push('\n');
        text
    } else {
        harmless(&value.to_string())
    };
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Who reads only the beginning has what they wanted.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(Exit::Done),
    }
}
