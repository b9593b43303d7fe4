//! The same for people: aligned columns, sizes and times in words.

use std::fmt;

use lighter_protocol::UnixTime;
use lighter_shell::count;
use time::OffsetDateTime;
use time::macros::format_description;

use super::{
    Cancelled, DeliveryState, DomainStatus, List, Lookup, OutboxStatus, PortMappingStatus, PullSource,
    Removed, Status, WaitRow,
};

impl fmt::Display for DeliveryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Offered => "offered",
            Self::Pulling => "pulling",
            Self::Receipted => "here",
            Self::LetGo => "let go",
            Self::Rejected => "rejected",
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "mailbox    {}", self.mailbox)?;
        writeln!(f, "key        {} ({})", self.peer, self.key)?;
        let online = match (self.running, self.registered) {
            (false, _) => "not running: start it with `lighter-agent run`",
            (true, true) => "online",
            (true, false) => "running, not registered",
        };
        writeln!(f, "agent      {online}")?;
        writeln!(f, "location   {}", self.location)?;
        if self.running {
            let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
            writeln!(f, "addresses  {}", or_none(&addresses.join(", ")))?;
            match &self.port_mapping {
                Some(PortMappingStatus { address: Some(address), by: Some(by), .. }) => {
                    writeln!(f, "router     maps {address} to here ({by})")?;
                }
                Some(PortMappingStatus { problem: Some(problem), .. }) => {
                    writeln!(f, "router     no port mapped: {problem}")?;
                }
                _ => {}
            }
            for relay in &self.relays {
                let connected = match relay.carrier.filter(|_| relay.connected) {
                    None if relay.connected => "connected".to_owned(),
                    None => "not connected".to_owned(),
                    Some(carrier) => format!("connected by {carrier}"),
                };
                writeln!(f, "relay      {} ({connected})", relay.peer)?;
            }
            if self.primary == Some(false) {
                writeln!(f, "           a further store: its receipts do not release")?;
            }
        }
        if let Some(problem) = &self.problem {
            writeln!(f, "problem    {problem}")?;
        }
        let quota = self.store.quota.map_or(String::new(), |quota| format!(" of {}", size(quota)));
        writeln!(
            f,
            "store      {}, {}{quota}; {} free on the disk",
            count(self.store.deliveries, "delivery", "deliveries"),
            size(self.store.bytes_used),
            size(self.store.bytes_free)
        )?;
        if let Some(hosted) = &self.hosted {
            writeln!(f, "hosted     {}", count(hosted.mailboxes, "mailbox", "mailboxes"))?;
            if let Some(one) = &hosted.mailbox {
                let served = match (one.served, one.primary) {
                    (false, _) => "not served",
                    (true, Some(false)) => "served, beside the user's own store",
                    (true, _) => "served",
                };
                let quota = one.quota.map_or(String::new(), |quota| format!(" of {}", size(quota)));
                let deliveries = count(one.deliveries, "delivery", "deliveries");
                let used = size(one.bytes_used);
                writeln!(f, "           {}: {served}; {deliveries}, {used}{quota}", one.mailbox)?;
            }
            for mailbox in &hosted.left {
                writeln!(
                    f,
                    "           {mailbox} is served no more; what is kept for it: `remove --mailbox`"
                )?;
            }
        }
        for (number, line) in self.limits.lines().into_iter().enumerate() {
            writeln!(f, "{:10} {line}", if number == 0 { "limits" } else { "" })?;
        }
        for WaitRow { delivery, bytes, reason } in &self.waiting {
            writeln!(f, "delivery   {delivery}, {}, {reason}", size(*bytes))?;
        }
        if self.waiting_more > 0 {
            writeln!(f, "           and {}", count(self.waiting_more, "more that waits", "more that wait"))?;
        }
        if self.pulling > 0 {
            writeln!(f, "pulling    {}", count(self.pulling, "delivery", "deliveries"))?;
        }
        for pull in &self.pulls {
            writeln!(f, "           delivery {}", pull.delivery)?;
            pull.sources.iter().try_for_each(|source| writeln!(f, "           {source}"))?;
        }
        for DomainStatus { domain, location, .. } in &self.domains {
            let location = location.as_deref().unwrap_or("its location server cannot be found now");
            writeln!(f, "domain     {domain}  {location}")?;
        }
        if let Some(submission) = &self.submission {
            write!(f, "{submission}")?;
        }
        for sent in &self.outgoing {
            let reason = sent.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
            writeln!(
                f,
                "sent       {} {:9} {} to {} “{}”{reason}",
                day(sent.created),
                sent.state,
                size(sent.bytes),
                sent.recipient,
                sent.subject
            )?;
            if sent.state == "waiting" {
                writeln!(f, "           delivery {}, until {}", sent.delivery, when(sent.expires))?;
            }
        }
        if let Some(outbox) = &self.outbox {
            write!(f, "{outbox}")?;
        }
        Ok(())
    }
}

impl fmt::Display for PullSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peer, kind, state, bytes, .. } = self;
        let speed = self.bytes_per_second.map_or(String::new(), |speed| format!(", {}/s", size(speed)));
        write!(f, "{kind:6} {peer}: {state}, {} brought{speed}", size(*bytes))
    }
}

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let recipient = &self.recipient;
        if self.mailed_whole {
            writeln!(f, "{recipient}: not offered any more; the message went whole by mail")
        } else {
            writeln!(
                f,
                "{recipient}: not offered any more: their message keeps its placeholders; nothing is kept here for it"
            )
        }
    }
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: let go of, {} are free again", self.delivery, size(self.bytes_freed))
    }
}

impl fmt::Display for OutboxStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problem = self.problem.as_ref().map_or(String::new(), |problem| format!(" ({problem})"));
        writeln!(f, "outbox     {}{problem}", self.folder.display())?;
        for item in &self.items {
            let reason = item.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
            let slash = if item.name.is_empty() { "" } else { "/" };
            writeln!(f, "           {:8}  {}{slash}{}{reason}", item.state, item.folder, item.name)?;
        }
        if self.more > 0 {
            writeln!(f, "           and {} more", self.more)?;
        }
        Ok(())
    }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.deliveries.is_empty() {
            return writeln!(f, "Nothing has been delivered yet.");
        }
        for delivery in &self.deliveries {
            let progress = match delivery.state {
                DeliveryState::Offered | DeliveryState::Pulling => {
                    format!("{} of {}", size(delivery.bytes_verified), size(delivery.bytes))
                }
                DeliveryState::Receipted | DeliveryState::LetGo => size(delivery.bytes),
                DeliveryState::Rejected => delivery.reason.clone().unwrap_or_default(),
            };
            writeln!(
                f,
                "{}  {:8}  {progress}  delivery {}",
                day(delivery.offered),
                delivery.state,
                delivery.delivery
            )?;
            if let Some(reason) =
                delivery.reason.as_ref().filter(|_| delivery.state != DeliveryState::Rejected)
            {
                writeln!(f, "    {reason}")?;
            }
            for part in &delivery.parts {
                writeln!(f, "    {:>10}  {}  {}", size(part.size), part.id, part.name)?;
            }
            delivery.sources.iter().try_for_each(|source| writeln!(f, "    from {source}"))?;
        }
        Ok(())
    }
}

impl fmt::Display for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(store) = &self.store else {
            return writeln!(f, "{}: no store that you may know of; mail goes whole", self.mailbox);
        };
        let addresses: Vec<String> = store.addresses.iter().map(ToString::to_string).collect();
        let answers = if store.answers { "answers" } else { "does not answer from here" };
        writeln!(f, "{}: {} since {}, {answers}", self.mailbox, store.presence, day(store.since))?;
        writeln!(f, "    key        {}", store.peer)?;
        writeln!(f, "    addresses  {}", or_none(&addresses.join(", ")))
    }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

/// A size as people write it.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut tenths = u128::from(bytes) * 10;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths = (tenths + 512) / 1024;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]) }
}

/// A time to the minute, in UTC.
pub(crate) fn when(time: UnixTime) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    let seconds = i64::try_from(time.0).unwrap_or(i64::MAX);
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok().and_then(|time| time.format(&format).ok());
    time.unwrap_or_else(|| "the end of time".to_owned())
}

fn day(time: UnixTime) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]");
    let seconds = i64::try_from(time.0).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|time| time.format(format).ok())
        .unwrap_or_else(|| format!("{time}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (25_000_000, "23.8 MiB"),
            (1 << 30, "1.0 GiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn bad_input_37_times_far_away_are_shown_all_the_same() {
        assert_eq!(day(UnixTime(1_800_000_000)), "2027-01-15 08:00");
        assert_eq!(day(UnixTime(u64::MAX)), u64::MAX.to_string());
    }
}
