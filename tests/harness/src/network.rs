//! Several hosts on one machine, within [`isolated`](crate::isolated): a network namespace each, wired to one switch.
//!
//! What befalls a host befalls its packets, not its programs: they see what a program sees whose cable is pulled, or
//! whose line is slow.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;

use crate::isolated::command;

/// A switch, and the hosts at it. The test itself is at the switch, too.
#[derive(Debug)]
pub struct Network {
    /// The hosts.
    pub hosts: Vec<Host>,
}

/// A host of a [`Network`].
#[derive(Debug)]
pub struct Host {
    number: u8,
}

impl Network {
    /// A network with so many hosts.
    ///
    /// # Errors
    /// Where the kernel does not make one.
    pub async fn new(hosts: u8) -> Result<Self> {
        command("ip link add switch type bridge").await?;
        command(&format!("ip addr add {}/24 dev switch", address(0))).await?;
        command("ip link set switch up").await?;
        let hosts: Vec<Host> = (1..=hosts).map(|number| Host { number }).collect();
        for host in &hosts {
            host.attach().await?;
        }
        Ok(Self { hosts })
    }
}

impl Host {
    async fn attach(&self) -> Result<()> {
        let (name, plug, address) = (self.name(), self.plug(), self.address());
        command(&format!("ip netns add {name}")).await?;
        command(&format!("ip link add {plug} type veth peer name wire netns {name}")).await?;
        command(&format!("ip link set {plug} master switch up")).await?;
        self.command(&format!("ip addr add {address}/24 dev wire")).await?;
        self.command("ip link set wire up").await?;
        self.command("ip link set lo up").await
    }

    /// Its address.
    pub fn address(&self) -> IpAddr {
        address(self.number)
    }

    /// What a program's command begins with that is to run on it.
    pub fn through(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.name()].map(ToOwned::to_owned).to_vec()
    }

    /// From now on, each packet to and from it is lost without a word: a broken switch, a firewall.
    ///
    /// # Errors
    /// Where the kernel does not do it.
    pub async fn cut_off(&self) -> Result<()> {
        self.command("nft add table inet cut").await?;
        for hook in ["input", "output"] {
            let chain = format!("{{ type filter hook {hook} priority 0 ; policy drop ; }}");
            self.command(&format!("nft add chain inet cut {hook} {chain}")).await?;
        }
        Ok(())
    }

    /// Its cable is pulled.
    ///
    /// # Errors
    /// Where the kernel does not do it.
    pub async fn unplug(&self) -> Result<()> {
        command(&format!("ip link set {} down", self.plug())).await
    }

    /// From now on its line carries so little, both ways. (A rate: not every kernel has delays.)
    ///
    /// # Errors
    /// Where the kernel does not do it.
    pub async fn slow_down(&self, kbit_per_second: u32) -> Result<()> {
        let limit = format!("root tbf rate {kbit_per_second}kbit burst 16kb limit 256kb");
        command(&format!("tc qdisc add dev {} {limit}", self.plug())).await?;
        self.command(&format!("tc qdisc add dev wire {limit}")).await
    }

    /// All is well again, whatever was done before.
    ///
    /// # Errors
    /// Where the kernel does not do it.
    pub async fn mend(&self) -> Result<()> {
        command(&format!("ip link set {} up", self.plug())).await?;
        self.command("nft flush ruleset").await?;
        // Deleting what is not there fails, and is as good.
        let _ = command(&format!("tc qdisc del dev {} root", self.plug())).await;
        let _ = self.command("tc qdisc del dev wire root").await;
        Ok(())
    }

    fn name(&self) -> String {
        format!("host-{}", self.number)
    }

    /// The switch's end of its cable.
    fn plug(&self) -> String {
        format!("plug-{}", self.number)
    }

    /// Runs a command on it.
    async fn command(&self, words: &str) -> Result<()> {
        command(&format!("{} {words}", self.through().join(" "))).await
    }
}

/// The address of the host with this number; 0 is the test's own. (RFC 1918; the network exists only in here.)
fn address(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 77, 0, number + 1).into()
}
