//! Server-sent events (WHATWG HTML §9.2.6) from bytes as they arrive. No I/O; bounded.

use super::limits::EVENT_LEN_MAX;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SseEvent {
    /// Its `event` field; `message` where there was none.
    pub name: String,
    /// Its `data` lines, joined with line feeds.
    pub data: String,
}

/// A line or an event over [`EVENT_LEN_MAX`], or text that is not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SseError;

/// Takes bytes, gives events.
#[derive(Debug, Default)]
pub struct SseParser {
    /// What has come in and is not yet parsed: `buffer[parsed..]`.
    buffer: Vec<u8>,
    parsed: usize,
    name: String,
    data: Option<String>,
    ready: std::collections::VecDeque<SseEvent>,
}

impl SseParser {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`SseError`]; nothing that comes after it means anything.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), SseError> {
        self.buffer.extend_from_slice(bytes);
        while let Some(end) = self.buffer[self.parsed..].iter().position(|&byte| byte == b'\n') {
            let line = self.buffer[self.parsed..self.parsed + end].to_vec();
            self.parsed += end + 1;
            self.line(std::str::from_utf8(&line).map_err(|_| SseError)?)?;
        }
        self.buffer.drain(..self.parsed);
        self.parsed = 0;
        if self.buffer.len() > EVENT_LEN_MAX { Err(SseError) } else { Ok(()) }
    }

    /// The next whole event.
    pub fn next_event(&mut self) -> Option<SseEvent> {
        self.ready.pop_front()
    }

    fn line(&mut self, line: &str) -> Result<(), SseError> {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            self.dispatch();
            return Ok(());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                let data = match self.data.take() {
                    Some(data) => data + "\n" + value,
                    None => value.to_owned(),
                };
                if data.len() > EVENT_LEN_MAX {
                    return Err(SseError);
                }
                self.data = Some(data);
            }
            // Comments (no field name), `id` and `retry`: our stream is begun again with a snapshot.
            _ => {}
        }
        Ok(())
    }

    fn dispatch(&mut self) {
        let name = std::mem::take(&mut self.name);
        if let Some(data) = self.data.take() {
            let name = if name.is_empty() { "message".to_owned() } else { name };
            self.ready.push_back(SseEvent { name, data });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": hello\n\nevent: snapshot\ndata: {\"a\":1}\n\nevent:change\r\ndata:x\r\ndata: y\r\n\r\n\
                          data: plain\n\nevent: unfinished\ndata: z\n";

    fn events(parser: &mut SseParser) -> Vec<(String, String)> {
        std::iter::from_fn(|| parser.next_event()).map(|event| (event.name, event.data)).collect()
    }

    fn expected() -> Vec<(String, String)> {
        [("snapshot", "{\"a\":1}"), ("change", "x\ny"), ("message", "plain")]
            .map(|(name, data)| (name.to_owned(), data.to_owned()))
            .to_vec()
    }

    #[test]
    fn events_are_the_same_however_the_bytes_arrive() {
        for chunk in [1, 2, 3, 7, 1000] {
            let mut parser = SseParser::default();
            let mut seen = Vec::new();
            for bytes in STREAM.as_bytes().chunks(chunk) {
                parser.feed(bytes).unwrap();
                seen.extend(events(&mut parser));
            }
            assert_eq!(seen, expected(), "in chunks of {chunk}");
        }
    }

    #[test]
    fn an_endless_line_is_refused_before_it_fills_memory() {
        let mut parser = SseParser::default();
        let kilobyte = [b'x'; 1024];
        let fed = (0..2 * EVENT_LEN_MAX / 1024).take_while(|_| parser.feed(&kilobyte).is_ok()).count();
        assert!(fed * 1024 <= EVENT_LEN_MAX);
    }

    #[test]
    fn an_endless_event_is_refused_before_it_fills_memory() {
        let mut parser = SseParser::default();
        let line = format!("data: {}\n", "x".repeat(1018));
        let fed = (0..2 * EVENT_LEN_MAX / 1024).take_while(|_| parser.feed(line.as_bytes()).is_ok()).count();
        assert!(fed * 1018 <= EVENT_LEN_MAX, "only the data counts");
    }
}
