//! What can be seen of a node without its agent: files and the kernel. What only the agent knows is said to be unknown.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Serialize;

use super::Range;
use super::picture::Canvas;

/// What only the agent could tell.
const UNKNOWN: [&str; 6] =
    ["readiness", "which nodes there are", "self-test", "what was healed", "leftovers", "what is wrong"];

/// What stands, whoever looks.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// Why the agent does not tell, with the next step.
    pub agent: String,
    /// The network configuration that was installed, where it is there.
    pub conflist: Option<PathBuf>,
    /// The network's name.
    pub network: Option<String>,
    /// How full each range is.
    pub leases: Vec<Range>,
    /// The routes that are marked as ours, and the tunnel; nothing where the kernel did not tell.
    pub kernel: Option<Kernel>,
    /// Why the kernel did not.
    pub kernel_problem: Option<String>,
    /// What only the agent could tell.
    pub unknown: Vec<&'static str>,
}

/// What stands in the kernel of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Kernel {
    /// The routes.
    pub routes: Vec<Route>,
    /// The tunnel.
    pub tunnel: Option<Tunnel>,
}

/// A route to pods of another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Where it leads.
    pub subnet: String,
    /// The next hop.
    pub through: Option<IpAddr>,
    /// The link, by its name.
    pub link: String,
}

/// The tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tunnel {
    /// Its name.
    pub link: String,
    /// Whether it is up.
    pub up: bool,
    /// Its VXLAN network identifier.
    pub id: u32,
    /// Its UDP port.
    pub port: u16,
    /// Its MTU.
    pub mtu_bytes: u32,
    /// How many far ends it knows.
    pub far_ends: usize,
}

impl Seen {
    /// Nothing yet, for this reason.
    #[must_use]
    pub fn without_agent(why: String) -> Self {
        Self { agent: why, unknown: UNKNOWN.into(), ..Self::default() }
    }

    /// As a person reads it.
    #[must_use]
    pub fn draw(&self, canvas: Canvas) -> String {
        let mut lines =
            vec![format!("this node  {}", canvas.bad("unknown: the agent does not answer")), String::new()];
        for (label, parts) in self.facts(canvas) {
            let head = canvas.dim(&format!("{label:<10} "));
            lines.extend(canvas.fold(&head, &" ".repeat(11), ", ", &parts));
        }
        lines.push(String::new());
        for problem in [Some(&self.agent), self.kernel_problem.as_ref()].into_iter().flatten() {
            let words: Vec<_> = problem.split(' ').map(str::to_owned).collect();
            lines.extend(canvas.fold(&canvas.bad("! "), "  ", " ", &words));
        }
        lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
    }

    fn facts(&self, canvas: Canvas) -> Vec<(&'static str, Vec<String>)> {
        let conflist = self
            .conflist
            .as_ref()
            .map_or("no configuration of ours".to_owned(), |path| path.display().to_string());
        let held = |range: &Range| {
            format!("{} of {} held in {}", range.held, super::picture::rounded(range.size), range.subnet)
        };
        let mut facts = vec![("network", self.network.iter().cloned().chain([conflist]).collect())];
        if !self.leases.is_empty() {
            facts.push(("addresses", self.leases.iter().map(held).collect()));
        }
        if let Some(Kernel { routes, tunnel }) = &self.kernel {
            let route = |route: &Route| {
                let through = route.through.map(|address| format!(" by {address}")).unwrap_or_default();
                format!("{}{through} on {}", route.subnet, route.link)
            };
            let count = routes.len();
            let mut parts: Vec<_> = routes.iter().take(canvas.most()).map(route).collect();
            parts.extend((count > canvas.most()).then(|| format!("and {} more", count - canvas.most())));
            facts.push(("routes", if count == 0 { vec!["none of ours".to_owned()] } else { parts }));
            facts.push((
                "tunnel",
                tunnel.as_ref().map_or_else(|| vec!["none of ours".to_owned()], Tunnel::parts),
            ));
        }
        facts.push(("unknown", self.unknown.iter().map(ToString::to_string).collect()));
        facts
    }
}

impl Tunnel {
    fn parts(&self) -> Vec<String> {
        let Self { link, up, id, port, mtu_bytes, far_ends } = self;
        let state = if *up { "up" } else { "down" };
        [
            link.clone(),
            state.to_owned(),
            format!("id {id}"),
            format!("port {port}"),
            format!("MTU {mtu_bytes}"),
            format!("{far_ends} far ends"),
        ]
        .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_said_that_was_not_seen() {
        let mut seen = Seen::without_agent("the agent does not answer at 127.0.0.1:1".into());
        let canvas = Canvas { width: 80, colours: false, all: false };
        let drawn = seen.draw(canvas);
        for invented in ["not ready", "0 rounds", "healed     nothing", "not run yet", "routes", "tunnel"] {
            assert!(!drawn.contains(invented), "{invented} is in\n{drawn}");
        }
        seen.kernel = Some(Kernel {
            routes: vec![Route {
                subnet: "10.244.1.0/24".into(),
                through: "192.0.2.2".parse().ok(),
                link: "eth0".into(),
            }],
            tunnel: None,
        });
        let expected = "\
this node  unknown: the agent does not answer

network    no configuration of ours
routes     10.244.1.0/24 by 192.0.2.2 on eth0
tunnel     none of ours
unknown    readiness, which nodes there are, self-test, what was healed,
           leftovers, what is wrong

! the agent does not answer at 127.0.0.1:1
";
        assert_eq!(seen.draw(canvas), expected);
    }
}
