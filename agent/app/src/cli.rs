//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use lighter_protocol::{DeliveryId, Mailbox, PeerId};
use lighter_transport::location::Secret;
use lighter_transport::location::api::AcceptancePolicy;

use crate::address_books::recipients::Recipient;
use crate::guest::amounts::{ByteRate, duration};
use crate::limits::RETRY_HOURS_MAX;
use crate::send::unreachable::Unreachable;

/// Keeps your mail's attachments in a store of your own.
#[derive(Debug, Parser)]
#[command(name = "lighter-agent", version, propagate_version = true)]
pub struct Cli {
    /// Configuration file [default: agent.toml in the XDG config folder]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Data folder: store, key, control socket [default: the XDG data folder]
    #[arg(long, global = true, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Print JSON, for scripts
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a key, enrol it, and write the configuration
    Setup(SetupArgs),
    /// Keep the store: be online, pull what is offered, serve what was sent
    Run,
    /// Show how things stand
    Status(OfArgs),
    /// Show what is in the store
    List(OfArgs),
    /// Ask the location server for a mailbox's store, and ping it
    Lookup {
        /// Whose store
        mailbox: Mailbox,
    },
    /// Choose who learns of your store and may send to it: show the choice, or change it
    Policy {
        /// Whose.
        #[command(flatten)]
        of: OfArgs,
        /// `open`: whoever their own domain vouches for; `known`: your own domain, whom you accepted or wrote to; `closed`:
        /// nobody
        policy: Option<AcceptancePolicy>,
    },
    /// Accept people of other domains
    Accept {
        /// Whose.
        #[command(flatten)]
        of: OfArgs,
        /// Whom
        #[arg(required = true)]
        mailboxes: Vec<Mailbox>,
    },
    /// Take nothing from people, whatever the policy
    Block {
        /// Whose.
        #[command(flatten)]
        of: OfArgs,
        /// Whom
        #[arg(required = true)]
        mailboxes: Vec<Mailbox>,
    },
    /// Forget what was said of people
    Forget {
        /// Whose.
        #[command(flatten)]
        of: OfArgs,
        /// Whom
        #[arg(required = true)]
        mailboxes: Vec<Mailbox>,
    },
    /// Say which of your mailbox's stores is the primary one, which new mail goes to: this one, or another
    Primary {
        /// Its key, as `lookup` of your own mailbox shows it [default: this agent's]
        peer: Option<PeerId>,
    },
    /// Say that a further device of yours is yours: its store is believed at once, not after 24 hours
    Confirm {
        /// Its key, as `setup` printed it there
        peer: PeerId,
    },
    /// Show this store's key, or change it: what waits, what is here and what is on its way stays
    #[command(subcommand)]
    Key(KeyCommand),
    /// Mail files: to recipients' stores where they can be reached, else whole
    Send(SendArgs),
    /// Give up what waits for a recipient's store; `status` lists it
    Cancel {
        /// The delivery's number, as `status` shows it
        delivery: DeliveryId,
        /// Send the message whole by mail instead
        #[arg(long)]
        whole: bool,
    },
    /// Show the address books' groups, who is in them, and what is wrong
    Groups {
        /// One group's name, or nickname [default: all]
        name: Option<String>,
    },
    /// Address books on CardDAV servers, which the configuration names
    #[command(name = "carddav", subcommand)]
    CardDav(CardDavCommand),
    /// Make the original message from a stub
    Restore(RestoreArgs),
    /// Fetch attachments: from the own store, else from the mail server
    Get(GetArgs),
    /// Let go of deliveries that are here, to make room; `list` shows them
    Remove {
        /// Everything that is here for a mailbox that this hosted store serves no more
        #[arg(long, value_name = "MAILBOX", conflicts_with = "deliveries")]
        mailbox: Option<Mailbox>,
        /// Their numbers, as `list` shows them
        #[arg(required_unless_present = "mailbox", value_name = "DELIVERY")]
        deliveries: Vec<DeliveryId>,
    },
    /// Limit how fast transfers go, for a while or until further notice; without arguments: show what holds
    Limit(LimitArgs),
    /// Let downloads and uploads wait; mail, small things and what you `get` still go
    Pause {
        /// For how long, such as `1h` or `30m` [default: until `resume`]
        #[arg(long = "for", value_name = "TIME", value_parser = duration)]
        time: Option<Duration>,
        /// Small things and what you `get` wait, too
        #[arg(long)]
        everything: bool,
    },
    /// End a pause
    Resume,
}

/// What to do with the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum KeyCommand {
    /// Show it, and those of before
    Show,
    /// Take a new one in its place: the old one is good for nothing from then on
    Rotate,
}

/// What to do with CardDAV servers.
#[derive(Debug, Subcommand)]
pub enum CardDavCommand {
    /// Give the password for a server; it is tried, and kept in the keyring or a file of yours
    Login {
        /// What the configuration calls it
        name: String,
    },
    /// Fetch what has changed
    Refresh {
        /// What the configuration calls it [default: all]
        name: Option<String>,
    },
}

/// Whose.
#[derive(Debug, Clone, Default, Args)]
pub struct OfArgs {
    /// On a hosted store: whose, of the mailboxes that it serves
    #[arg(long, value_name = "MAILBOX")]
    pub mailbox: Option<Mailbox>,
}

/// Arguments of `limit`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("rates").args(["down", "up"]).multiple(true))]
pub struct LimitArgs {
    /// What comes: at most so much a second, such as `2 MiB/s`, `500k` or `20 Mbit/s` [default: any]
    #[arg(long, value_name = "RATE")]
    pub down: Option<ByteRate>,
    /// What goes: at most so much a second [default: any]
    #[arg(long, value_name = "RATE")]
    pub up: Option<ByteRate>,
    /// For how long, such as `2h` or `1d` [default: until `limit --off`]
    #[arg(long = "for", value_name = "TIME", value_parser = duration, requires = "rates")]
    pub time: Option<Duration>,
    /// Lift what was set this way: configuration and schedule count again
    #[arg(long, conflicts_with = "rates")]
    pub off: bool,
}

/// Arguments of `setup`.
#[derive(Debug, Args)]
pub struct SetupArgs {
    /// Your mailbox
    #[arg(long)]
    pub mailbox: Mailbox,
    /// Your location server, such as `https://location.example.org:8443`
    #[arg(long, value_name = "URL")]
    pub location: String,
    /// The invitation's token
    #[arg(long, value_parser = secret)]
    pub token: Secret,
    /// Your mail server, for `send`
    #[arg(long, value_name = "HOST:PORT")]
    pub smtp: Option<String>,
    /// Let mail clients on this machine send through the agent, at this address
    #[arg(long, value_name = "IP:PORT", num_args = 0..=1, default_missing_value = crate::submission::LISTEN_DEFAULT)]
    pub submission: Option<SocketAddr>,
    /// Certificates (PEM) to trust for the location server instead of the system's
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Keep the key in a file even where there is a keyring
    #[arg(long)]
    pub key_file: bool,
}

/// Arguments of `send`.
#[derive(Debug, Args)]
pub struct SendArgs {
    /// A recipient, or a group of your address books (see `groups`); can be given again
    #[arg(long, required = true, value_name = "MAILBOX|GROUP")]
    pub to: Vec<Recipient>,
    /// A further recipient or group; can be given again
    #[arg(long, value_name = "MAILBOX|GROUP")]
    pub cc: Vec<Recipient>,
    /// Leave out members of groups that have no usable address, instead of sending nothing
    #[arg(long)]
    pub skip_broken: bool,
    /// What it is about
    #[arg(long, default_value = "")]
    pub subject: String,
    /// The text; `-` reads it from standard input
    #[arg(long, default_value = "")]
    pub body: String,
    /// What happens where a recipient has a store that cannot be reached now: `retry` sends the message at once and keeps
    /// the attachments here until the store takes them [default: as configured]
    #[arg(long, value_enum)]
    pub unreachable: Option<Unreachable>,
    /// How long they are kept for it; then the message goes whole by mail [default: as configured]
    #[arg(long, value_name = "HOURS", value_parser = clap::value_parser!(u32).range(1..=i64::from(RETRY_HOURS_MAX)))]
    pub retry_hours: Option<u32>,
    /// Files to attach
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// On a hosted store: whose mail it is; nothing of anybody else's is put in [default: its own mailbox's]
    #[arg(long, value_name = "MAILBOX", conflicts_with = "blobs")]
    pub mailbox: Option<Mailbox>,
    /// Take blobs and manifests from a folder, with no agent at all
    #[arg(long, value_name = "DIR")]
    pub blobs: Option<PathBuf>,
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The stub; standard input where it is missing or `-`
    #[arg(value_name = "STUB")]
    pub stub: Option<PathBuf>,
}

/// Arguments of `get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// On a hosted store: whose mail it is; nothing of anybody else's is given [default: its own mailbox's]
    #[arg(long, value_name = "MAILBOX")]
    pub mailbox: Option<Mailbox>,
    /// An attachment's id (64 hexadecimal digits), or a file with a stub: then all its attachments
    #[arg(value_name = "BLOB|STUB")]
    pub what: String,
    /// A file to write to (`-`: standard output), or, for a stub, a folder [default: the attachment's name]
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,
}

fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    text.parse()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
