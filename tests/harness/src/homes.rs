//! Home networks on one machine, within [`isolated`](crate::isolated): hosts in network namespaces, behind routers that
//! translate addresses (NAT, by nftables) as those of homes and providers do. The test itself is on their internet, at
//! [`PUBLIC`], as a domain's servers are.
//!
//! The kinds are those of RFC 4787 in the words that everybody uses (RFC 3489 §5). A router drops what it was not asked
//! for without a word, as they do: one that answered would take the mapping that the hole needs.
//!
//! Addresses of the internet in here look like public ones, since agents dial no others: 11.0.0.0/16. They exist in these
//! namespaces only.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;

use crate::isolated::command;
use crate::programs::run_ok;

/// Where the test's own namespace is on the internet.
pub const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(11, 0, 0, 1));
/// The UDP port of the first host of a home, which its router may know of; the next host has the next one.
pub const PORT: u16 = 7_443;

/// What is between a host and the internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Router {
    /// Nothing: a public address.
    None,
    /// The same outside port for everybody, who may all send to it.
    FullCone,
    /// … of whom only those may that something was sent to, from whichever port.
    AddressRestricted,
    /// … from that port only. What most homes have.
    PortRestricted,
    /// Another outside port for each destination, open to that one only.
    Symmetric,
    /// A port-restricted router behind another one: a provider's (RFC 6598).
    Double,
    /// Port-restricted, and lets no UDP through at all: an office.
    UdpBlocked,
    /// Lets nothing through but TCP to port 443.
    WebOnly,
    /// Lets nothing through at all: what runs on the router itself is the only way out.
    Closed,
    /// A full cone that also lets its own hosts reach each other by their outside addresses.
    Hairpin,
    /// Port-restricted, and ready for a daemon that maps ports where a host asks for one (`peers::Miniupnpd`).
    PortMapping,
    /// The same, behind another port-restricted one: what it maps is of no use.
    DoublePortMapping,
}

/// The internet, and the homes at it.
#[derive(Debug)]
pub struct Internet {
    homes: u8,
}

/// A host in a home.
#[derive(Clone, Debug)]
pub struct HomeHost {
    namespace: String,
    number: u8,
    home: Home,
    /// The UDP port that its agent is to listen on.
    pub port: u16,
}

impl HomeHost {
    /// What a program's command begins with that is to run on it.
    pub fn through(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.namespace].map(ToOwned::to_owned).to_vec()
    }

    /// What a program's command begins with that is to run on its router, which is at 192.168.1.1 for it.
    pub fn on_router(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.home.name("router")].map(ToOwned::to_owned).to_vec()
    }

    /// Where its router is on the internet.
    pub fn outside(&self) -> IpAddr {
        Ipv4Addr::new(11, 0, 1, self.home.number).into()
    }

    /// From now on its router lets UDP through, or does not any more.
    ///
    /// # Errors
    /// Where the kernel does not do it.
    pub async fn let_udp_through(&self, through: bool) -> Result<()> {
        let router = self.home.name("router");
        if through {
            return within(&router, "nft delete table ip block").await;
        }
        let nft = ["netns", "exec", &router, "nft", "-f", "-"].map(ToOwned::to_owned);
        run_ok("ip".as_ref(), nft, NO_UDP.as_bytes()).await?;
        Ok(())
    }

    /// From now on its router does not answer PCP.
    ///
    /// # Errors
    /// Where the kernel does not do it.
    pub async fn without_pcp(&self) -> Result<()> {
        let nft = ["netns", "exec", &self.home.name("router"), "nft", "-f", "-"].map(ToOwned::to_owned);
        run_ok("ip".as_ref(), nft, NO_PCP.as_bytes()).await?;
        Ok(())
    }

    /// The rules of a chain of its router, as nftables lists them.
    ///
    /// # Errors
    /// Where there is no such chain.
    pub async fn rules_of(&self, family: &str, table: &str, chain: &str) -> Result<String> {
        let router = self.home.name("router");
        let list = ["netns", "exec", &router, "nft", "list", "chain", family, table, chain];
        let listed = run_ok("ip".as_ref(), list.map(ToOwned::to_owned), &[]).await?;
        Ok(String::from_utf8_lossy(&listed).into_owned())
    }

    /// From now on it sends no more than so much.
    ///
    /// # Errors
    /// Where the kernel does not do it.
    pub async fn slow_down(&self, kbit_per_second: u32) -> Result<()> {
        let limit = format!("root tbf rate {kbit_per_second}kbit burst 16kb limit 256kb");
        within(&self.namespace, &format!("tc qdisc add dev wire {limit}")).await
    }

    /// Gives it another address in its home, as another network would: what it sent from the old one is answered to nobody.
    ///
    /// # Errors
    /// Where the kernel does not do it, or it is in no home.
    pub async fn move_on(&mut self) -> Result<()> {
        let (before, after) = (self.number + 1, self.number + 101);
        within(&self.namespace, &format!("ip addr del 192.168.1.{before}/24 dev wire")).await?;
        within(&self.namespace, &format!("ip addr add 192.168.1.{after}/24 dev wire")).await?;
        within(&self.namespace, "ip route replace default via 192.168.1.1").await?;
        self.number += 100;
        Ok(())
    }
}

impl Internet {
    /// An internet without homes.
    ///
    /// # Errors
    /// Where the kernel does not make one.
    pub async fn new() -> Result<Self> {
        command("ip link add internet type bridge").await?;
        // An address of its own: otherwise it would take another one with each home that is plugged in, and nobody who knows
        // the one before would reach this side for half a minute.
        command("ip link set internet address 02:00:00:00:00:01").await?;
        command(&format!("ip addr add {PUBLIC}/16 dev internet")).await?;
        command("ip link set internet up").await?;
        Ok(Self { homes: 0 })
    }

    /// A home behind a router of this kind, with so many hosts.
    ///
    /// # Errors
    /// Where the kernel does not make one.
    pub async fn home(&mut self, router: Router, hosts: u8) -> Result<Vec<HomeHost>> {
        self.homes += 1;
        let home = Home { number: self.homes };
        if router == Router::None {
            let name = home.name("host-1");
            namespace(&name).await?;
            home.plug_in(&name).await?;
            within(&name, &format!("ip route add default via {PUBLIC}")).await?;
            return Ok(vec![HomeHost { namespace: name, number: 0, home, port: PORT }]);
        }
        let name = home.name("router");
        namespace(&name).await?;
        if matches!(router, Router::Double | Router::DoublePortMapping) {
            let outer = home.name("outer");
            namespace(&outer).await?;
            home.plug_in(&outer).await?;
            bridge(&outer, "100.64.0.1/24").await?;
            cable(&outer, "inner", &name, "wan", "100.64.0.2/24").await?;
            within(&name, "ip route add default via 100.64.0.1").await?;
            route(&outer, Router::PortRestricted).await?;
        } else {
            home.plug_in(&name).await?;
        }
        bridge(&name, "192.168.1.1/24").await?;
        route(&name, router).await?;
        let mut made = Vec::new();
        for number in 1..=hosts {
            let host = home.name(&format!("host-{number}"));
            namespace(&host).await?;
            cable(&name, &format!("to-{number}"), &host, "wire", &format!("192.168.1.{}/24", number + 1))
                .await?;
            within(&host, "ip route add default via 192.168.1.1").await?;
            made.push(HomeHost { namespace: host, number, home, port: PORT + u16::from(number) - 1 });
        }
        Ok(made)
    }
}

#[derive(Clone, Copy, Debug)]
struct Home {
    number: u8,
}

impl Home {
    fn name(&self, part: &str) -> String {
        format!("home-{}-{part}", self.number)
    }

    /// Gives a namespace its place on the internet.
    async fn plug_in(&self, namespace: &str) -> Result<()> {
        let plug = format!("plug-{}", self.number);
        command(&format!("ip link add {plug} type veth peer name wan netns {namespace}")).await?;
        command(&format!("ip link set {plug} master internet up")).await?;
        within(namespace, &format!("ip addr add 11.0.1.{}/16 dev wan", self.number)).await?;
        within(namespace, "ip link set wan up").await
    }
}

async fn namespace(name: &str) -> Result<()> {
    command(&format!("ip netns add {name}")).await?;
    within(name, "ip link set lo up").await
}

/// The inside of a router, with its address there.
async fn bridge(router: &str, address: &str) -> Result<()> {
    within(router, "ip link add lan type bridge").await?;
    within(router, &format!("ip addr add {address} dev lan")).await?;
    within(router, "ip link set lan up").await
}

/// A cable from the inside of a router to something else.
async fn cable(router: &str, plug: &str, to: &str, wire: &str, address: &str) -> Result<()> {
    within(router, &format!("ip link add {plug} type veth peer name {wire} netns {to}")).await?;
    within(router, &format!("ip link set {plug} master lan up")).await?;
    within(to, &format!("ip addr add {address} dev {wire}")).await?;
    within(to, &format!("ip link set {wire} up")).await
}

/// Makes a router of a namespace.
async fn route(namespace: &str, router: Router) -> Result<()> {
    let in_it = ["netns", "exec", namespace];
    let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward".to_owned();
    let shell = in_it.map(ToOwned::to_owned).into_iter().chain(["sh".to_owned(), "-c".to_owned(), forward]);
    run_ok("ip".as_ref(), shell, &[]).await?;
    let nft = in_it.into_iter().chain(["nft", "-f", "-"]).map(ToOwned::to_owned);
    run_ok("ip".as_ref(), nft, rules(router).as_bytes()).await?;
    Ok(())
}

/// A router as nftables rules.
fn rules(router: Router) -> String {
    let (known, far, hairpin) = match router {
        Router::FullCone => (r#"iifname "wan""#, "", ""),
        Router::AddressRestricted => (r#"iifname "wan" ip saddr @sent_to"#, "", ""),
        Router::Hairpin => (r#"fib daddr type local"#, "", r#"iifname "lan" oifname "lan" masquerade"#),
        Router::Symmetric => ("", " random,fully-random", ""),
        _ => ("", "", ""),
    };
    let to_hosts = if known.is_empty() {
        String::new()
    } else {
        let to =
            |number: u16| format!("{known} udp dport {} dnat to 192.168.1.{}\n", PORT + number, number + 2);
        (0..2).map(to).collect()
    };
    let only = match router {
        Router::WebOnly => {
            r#"iifname "lan" meta l4proto != tcp drop
                iifname "lan" tcp dport != 443 drop"#
        }
        Router::Closed => "drop",
        _ => "",
    };
    let (to_router, mapped) = match router {
        Router::PortMapping | Router::DoublePortMapping => (r#"iifname "lan" accept"#, MAPPED),
        _ => ("", ""),
    };
    let no_udp = if router == Router::UdpBlocked { NO_UDP } else { "" };
    format!(
        r#"
        table ip home {{
            set sent_to {{ type ipv4_addr; flags dynamic,timeout; timeout 2m; }}
            chain before {{ type nat hook prerouting priority -100;
                {to_hosts}
            }}
            chain behind {{ type nat hook postrouting priority 100;
                {hairpin}
                oifname "wan" masquerade{far}
            }}
            chain into {{ type filter hook input priority 0;
                {to_router}
                ct state new meta l4proto udp drop
            }}
            chain across {{ type filter hook forward priority 0;
                {only}
                iifname "lan" meta l4proto udp update @sent_to {{ ip daddr }}
                iifname "wan" ct status dnat accept
                iifname "wan" ct state new drop
            }}
        }}
        {no_udp}
        {mapped}
        "#
    )
}

/// Where a daemon puts the ports that it maps.
const MAPPED: &str = r#"
        table inet ports {
            chain forward { }
            chain mapped { }
            chain behind { }
            chain before { type nat hook prerouting priority -110;
                jump mapped
            }
        }
"#;

/// Whoever asks a router by PCP hears nothing: version 2 is the first byte of its datagrams (RFC 6887 §7.1).
const NO_PCP: &str = r#"
        table ip old {
            chain into { type filter hook input priority -10;
                udp dport 5351 @th,64,8 2 drop
            }
        }
"#;

/// Lets no UDP through, whatever else a router does.
const NO_UDP: &str = r#"
        table ip block {
            chain across { type filter hook forward priority -10; meta l4proto udp drop; }
        }
"#;

/// Runs a command in a namespace.
async fn within(namespace: &str, words: &str) -> Result<()> {
    command(&format!("ip netns exec {namespace} {words}")).await
}
