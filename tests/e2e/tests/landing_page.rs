//! The page behind a stub's link, in a real browser: it shows names and sizes as text, runs no script, fits on a phone,
//! and gives the file itself.

use anyhow::{Context, Result, ensure};
use lighter_e2e::head;
use lighter_harness::World;
use lighter_harness::mail::TestMessage;
use lighter_harness::peers::{Browser, View};
use lighter_harness::watch::wait_for_mail;
use serde_json::Value;

const SIZE: u64 = 1_234_567;
/// What would take the page over, were it not shown as text.
const SUBJECT: &str = "<script>document.title='owned'</script><img src=x onerror=document.title='owned'>";
const NAME: &str =
    "<img src=x onerror=document.title='owned'> a rather long name that does not want to end.pdf";
/// A phone and a desktop.
const WIDTHS: [u32; 2] = [360, 1280];

// SPEC: A22, D2
#[tokio::test]
async fn bad_input_21_the_landing_page_in_a_browser_shows_hostile_names_as_text_and_gives_the_file()
-> Result<()> {
    let world = World::start().await?;
    let alice = world.agent("alice").await?;
    let message = TestMessage {
        subject: SUBJECT.to_owned(),
        name: NAME.to_owned(),
        ..TestMessage::new(&alice.mailbox, SIZE, 1)
    };
    world.send(&message).await?;
    let stub = wait_for_mail(&world, &alice.mailbox, 1).await?;
    let link = link(&world, &stub).await?;
    let folder = tempfile::tempdir()?;
    let mut browser = Browser::start(folder.path()).await?;
    browser.go(&link).await?;

    let shown = browser.evaluate("document.body.innerText").await?;
    let shown = shown.as_str().context("no text")?;
    // In a file name, what no file system takes is an underscore.
    let name = NAME.replace(['<', '>'], "_");
    for text in ["1 attachment", SUBJECT, &name, "1.2 MB"] {
        ensure!(shown.contains(text), "no {text:?} on the page:\n{shown}");
    }
    // Nothing of it became an element, and one put in from outside would not run.
    let elements = browser.evaluate("document.querySelectorAll('script, img, iframe').length").await?;
    ensure!(elements == 0, "{elements} elements out of a mail");
    let put_in = "(() => { const script = document.createElement('script'); script.textContent = 'window.ran = 1'; \
                  document.body.append(script); return window.ran === undefined })()";
    ensure!(browser.evaluate(put_in).await? == true, "a script ran");
    ensure!(browser.evaluate("document.title").await? == "1 attachment", "the title was changed");

    let mut grounds = Vec::new();
    for width in WIDTHS {
        for dark in [false, true] {
            browser.look(View { width, height: 800, dark }).await?;
            let wider = browser.evaluate("document.documentElement.scrollWidth - innerWidth").await?;
            ensure!(wider.as_i64() <= Some(0), "{width} pixels wide, the page scrolls sideways by {wider}");
            grounds.push(browser.evaluate("getComputedStyle(document.body).backgroundColor").await?);
            keep_picture(&mut browser, width, dark).await?;
        }
    }
    ensure!(grounds[0] != grounds[1] && grounds[..2] == grounds[2..], "light and dark: {grounds:?}");

    let file = browser.download("a.file").await?;
    let saved = file.file_name().and_then(|name| name.to_str()).context("no name")?;
    ensure!(saved.ends_with("that does not want to end.pdf"), "saved as {saved:?}");
    ensure!(blake3::hash(&std::fs::read(&file)?) == message.attachment().blake3(), "other bytes");
    Ok(())
}

/// The link of a stub's delivery.
async fn link(world: &World, stub: &[u8]) -> Result<String> {
    let text = String::from_utf8_lossy(stub);
    let (_, delivery) =
        text.split_once("delivery=").with_context(|| format!("not a stub:\n{}", head(stub)))?;
    let delivery = delivery.get(..32).context("no delivery")?;
    let shown = world.relay_command(&["ticket", "show", delivery]).await?;
    Ok(shown.pointer("/link").and_then(Value::as_str).context("no link")?.to_owned())
}

/// Keeps a picture in the folder that `LIGHTER_PICTURES` names, for a person to look at.
async fn keep_picture(browser: &mut Browser, width: u32, dark: bool) -> Result<()> {
    let Some(folder) = std::env::var_os("LIGHTER_PICTURES") else { return Ok(()) };
    let name = format!("landing-{width}-{}.png", if dark { "dark" } else { "light" });
    Ok(std::fs::write(std::path::Path::new(&folder).join(name), browser.picture().await?)?)
}
