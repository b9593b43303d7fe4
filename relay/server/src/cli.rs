//! The commands of `lighter-relay` (DESIGN §12), as clap reads them.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use lighter_protocol::PeerId;
use lighter_storage::{Label, Place, Shared, UnitId};

use crate::config::Role;

/// The relay: carries attachments off the mail server, keeps them mirrored, hands them to their recipients' stores.
#[derive(Debug, Parser)]
#[command(name = "lighter-relay", version, max_term_width = 100)]
pub struct Cli {
    /// Configuration file (TOML). Without one, everything runs on this machine with its defaults.
    #[arg(long, global = true, value_name = "FILE", env = "LIGHTER_RELAY_CONFIG")]
    pub config: Option<PathBuf>,
    /// Folder for keys, the catalog and, by default, units and Maildirs; overrides the configuration's.
    #[arg(long, global = true, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Prints JSON, for scripts.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "one is made, when the program starts")]
pub enum Command {
    /// Runs until it is told to stop (SIGTERM).
    Serve(Serve),
    /// Shows what waits: for stores, and for the next hop.
    Queue,
    /// Shows the storage array, and changes which servers it has.
    Array {
        /// What about it.
        #[command(subcommand)]
        command: ArrayCommand,
    },
    /// Looks at, or makes again, the catalog's view of the log.
    Catalog {
        /// What about it.
        #[command(subcommand)]
        command: CatalogCommand,
    },
    /// The relay's keys: its PeerId, and the array key, the only thing to back up.
    Keys {
        /// What about them.
        #[command(subcommand)]
        command: KeysCommand,
    },
    /// The rights to fetch a delivery over HTTP.
    Ticket {
        /// What about them.
        #[command(subcommand)]
        command: TicketCommand,
    },
    /// Looks at configuration, keys, disks, ports and the location server, and says what to mend.
    Check,
    /// Takes the attachments out of one message: the original on standard input, the stub on standard output.
    Detach(Detach),
}

/// `lighter-relay serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// Only these roles; may be given several times, or as a list with commas.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "ROLE")]
    pub role: Vec<Role>,
}

/// `lighter-relay array …`.
#[derive(Debug, Subcommand)]
pub enum ArrayCommand {
    /// Servers, segments, and whether everything has its copies.
    Status,
    /// Takes a storage server in. One that is there already gets this address and these names, and does not drain any
    /// more.
    Add {
        /// Its PeerId: `lighter-relay keys id` on its machine prints it.
        peer: PeerId,
        /// Where it listens: `IP:PORT`.
        address: SocketAddr,
        /// Where it is.
        #[command(flatten)]
        at: At,
    },
    /// Gives a server no new segments, and copies what it has to others.
    Drain {
        /// Which one.
        peer: PeerId,
    },
    /// Takes a server out that was drained.
    Remove {
        /// Which one.
        peer: PeerId,
        /// It is gone for good, with its data: what it had is copied again from the other copies. It must not come back.
        #[arg(long)]
        lost: bool,
    },
    /// Takes a server in in place of another one, which drains.
    Replace {
        /// The one that goes.
        old: PeerId,
        /// The one that comes.
        new: PeerId,
        /// Where the new one listens: `IP:PORT`.
        address: SocketAddr,
        /// The old one is gone for good, with its data. It must not come back.
        #[arg(long)]
        lost: bool,
        /// Where the new one is.
        #[command(flatten)]
        at: At,
    },
    /// Says on which servers, or units of them, a relay's copies may be. None named: on all of them.
    Mirror {
        /// The relay.
        relay: PeerId,
        /// `PEER`, or `PEER/UNIT` with the unit's 32 hexadecimal digits.
        #[arg(value_name = "PLACE", value_parser = place)]
        places: Vec<Place>,
    },
    /// Lets two copies of the same be on one machine, disk or network path.
    Allow {
        /// `host:NAME`, `disk:NAME` or `zone:NAME`.
        shared: Shared,
    },
    /// Keeps copies written from now on apart again.
    Forbid {
        /// `host:NAME`, `disk:NAME` or `zone:NAME`.
        shared: Shared,
    },
}

/// Where a server is: two copies of the same never share any of it, unless that was allowed.
#[derive(Clone, Debug, Args)]
pub struct At {
    /// Its machine; without this, the one of its address.
    #[arg(long, value_name = "NAME")]
    pub host: Option<Label>,
    /// The disk below its units, where other servers may have the same: a NAS.
    #[arg(long, value_name = "NAME")]
    pub disk: Option<Label>,
    /// The network path to it, where other servers have the same.
    #[arg(long, value_name = "NAME")]
    pub zone: Option<Label>,
    /// Its group: a later one takes writes that the earlier ones do not.
    #[arg(long, value_name = "NUMBER")]
    pub group: Option<u8>,
}

/// `PEER` or `PEER/UNIT`.
fn place(text: &str) -> Result<Place, String> {
    let (server, unit) = match text.split_once('/') {
        None => (text, None),
        Some((server, unit)) => {
            let unit = UnitId::from_hex(unit).ok_or("a unit is named by 32 hexadecimal digits")?;
            (server, Some(unit))
        }
    };
    let server = server.parse().map_err(|error| format!("not a PeerId: {error}"))?;
    Ok(Place { server, unit })
}

/// `lighter-relay catalog …`.
#[derive(Debug, Subcommand)]
pub enum CatalogCommand {
    /// Counts, and how far the view has followed the log.
    Status,
    /// Makes the view anew from the log, while the relay is stopped. (A start does so by itself where it is needed.)
    Rebuild,
    /// Finds every disagreement between the view and the log, and between what messages refer to and the array; changes
    /// nothing. Exits with 0 where there is none, 1 where there is one, 75 where it could not be finished.
    Check {
        /// Also reads the last record of each blob that is referred to, from each of its copies.
        #[arg(long)]
        deep: bool,
    },
    /// Says for each segment how much of it nothing refers to.
    Orphans,
    /// Gives the room of what nothing refers to back now, in segments of the day before yesterday and earlier that are
    /// mostly dead (`array.thin_below_percent`). The relay does so once a day by itself.
    Thin,
    /// Moves the catalog that this relay had in a file into the database that is configured (catalog.engine =
    /// "postgresql"), while the relay is stopped. Broken off, it goes on where it stopped.
    Import,
}

/// `lighter-relay keys …`.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Prints the PeerIds of the relay and of the storage servers in its configuration, making missing keys first.
    Id,
    /// Prints the array key: keep it somewhere safe, without it the array is noise.
    Export,
    /// Reads an exported array key from standard input and puts it in place; never over a different one.
    Import,
    /// Changes the array key, while the relay runs: everything is wrapped under a new one, then the old one is destroyed.
    /// Export it afterwards.
    Rotate,
    /// Says whether the array key is being changed, which servers are waited for, and whether it was exported.
    Status,
}

/// `lighter-relay ticket …`.
#[derive(Debug, Subcommand)]
pub enum TicketCommand {
    /// Prints a delivery's link.
    Show {
        /// The delivery: 32 hexadecimal digits.
        delivery: lighter_protocol::DeliveryId,
    },
    /// Makes a delivery's link worthless, for good.
    Revoke {
        /// The delivery: 32 hexadecimal digits.
        delivery: lighter_protocol::DeliveryId,
    },
}

/// `lighter-relay detach`.
#[derive(Debug, Args)]
pub struct Detach {
    /// Where the attachments and the manifest go: each blob in a file named by its BLAKE3 hash.
    #[arg(long, value_name = "DIR")]
    pub blobs: PathBuf,
    /// Smaller parts, decoded, stay in the message.
    #[arg(long, value_name = "BYTES", default_value_t = 256 * 1024)]
    pub min_size: u64,
    /// Also take out what is left alone by default: signed and encrypted mail, calendar parts, inline pictures.
    #[arg(long)]
    pub everything: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_place_is_a_server_or_one_of_its_units() {
        let peer = lighter_transport::Identity::generate().peer();
        let unit = "0123456789abcdef0123456789abcdef";
        assert_eq!(place(&peer.to_string()).unwrap(), Place { server: peer, unit: None });
        let with_unit = place(&format!("{peer}/{unit}")).unwrap();
        assert_eq!(with_unit, Place { server: peer, unit: UnitId::from_hex(unit) });
        for bad in ["", "x", &format!("{peer}/"), &format!("{peer}/xyz"), &format!("/{unit}")] {
            assert!(place(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn roles_may_be_given_as_a_list() {
        let cli = Cli::parse_from(["lighter-relay", "serve", "--role", "smtp,storage", "--role", "web"]);
        let Command::Serve(serve) = cli.command else { panic!("not serve") };
        assert_eq!(serve.role, [Role::Smtp, Role::Storage, Role::Web]);
    }
}
