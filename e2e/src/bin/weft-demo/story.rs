//! What happens, in its order.

use std::collections::BTreeMap;
use std::time::Duration;

use weft_e2e::mesh::service_of;
use weft_e2e::{Client, Error, Result, Upstream, wait};

use crate::documents::{self, BROKEN_LINE, CANARY, TAG_HEADERS, TO_V1, UNSEEN_TAG_HEADER, WEIGHTS};
use crate::screen::Screen;
use crate::stage::{Attached, Mesh, OUTBOUND, Stage};
use crate::traffic::Traffic;

const HOST: &str = "web.shop";
const WEB_PORT: u16 = 8080;
/// An ACK comes from Envoy's main thread; its worker follows within this.
const IN_FORCE: Duration = Duration::from_secs(1);

/// Tells it all, or says why it cannot.
pub(crate) fn tell(screen: &Screen) -> Result<()> {
    screen.show("Weft end to end, on a machine made of namespaces: nothing outside it changes.");
    let stage = Stage::build()?;
    let pods = attach(screen, &stage)?;
    let _web = serve(&pods)?;
    let mut mesh = start_mesh(screen, &stage, &pods)?;
    let traffic = Traffic::start(&pods.client.pod, OUTBOUND, HOST)?;
    let mut client = Client::from(&pods.client.pod, OUTBOUND)?;
    tags_arrive(screen, &mut client)?;
    canary(screen, &stage, &mut mesh, &mut client)?;
    weights(screen, &stage, &mut mesh, &mut client)?;
    mistake(screen, &stage, &mut mesh, &mut client)?;
    no_request_failed(screen, traffic)?;
    drop((client, _web));
    remove(screen, &stage, pods, mesh)
}

struct Pods {
    client: Attached,
    v1: Attached,
    v2: Attached,
}

impl Pods {
    fn all(self) -> [(&'static str, Attached); 3] {
        [("client", self.client), ("web-v1", self.v1), ("web-v2", self.v2)]
    }
}

fn attach(screen: &Screen, stage: &Stage) -> Result<Pods> {
    screen.step(1, "weft-cni attaches three pods, as a container runtime would");
    let attach = |name: &str| {
        let attached = stage.attach(name)?;
        let [v4, v6] = attached.addresses;
        screen.show(format!("{name:<8} {v4:<13} {v6:<18} ADD took {}", millis(attached.took)));
        Ok::<_, Error>(attached)
    };
    let pods = Pods { client: attach("client")?, v1: attach("web-v1")?, v2: attach("web-v2")? };
    screen.show("\nweft-ipam list:");
    screen.quote(&stage.leases()?);
    Ok(pods)
}

fn serve(pods: &Pods) -> Result<[Upstream; 2]> {
    Ok([
        Upstream::start(&pods.v1.pod, WEB_PORT, "web-v1")?,
        Upstream::start(&pods.v2.pod, WEB_PORT, "web-v2")?,
    ])
}

fn start_mesh(screen: &Screen, stage: &Stage, pods: &Pods) -> Result<Mesh> {
    screen.step(2, "Envoy and weft-sidecar start in the client's pod");
    let [v1, v2] = [&pods.v1, &pods.v2].map(|pod| pod.addresses[0]);
    let file = |name: &str, text: &str| stage.node.write(format!("{}/{name}", documents::DIR), text);
    file("sidecar.yaml", documents::SIDECAR)?;
    file("web.yaml", &service_of("web", &[v1, v2], 8080))?;
    file("web-v1.yaml", &service_of("web-v1", &[v1], 8080))?;
    file("web-v2.yaml", &service_of("web-v2", &[v2], 8080))?;
    file("route.yaml", &documents::route(TO_V1))?;
    let mesh = Mesh::start(&pods.client.pod)?;
    screen.show(format!("Envoy {} is live {} after the start of both", mesh.version()?, millis(mesh.took)));
    Ok(mesh)
}

fn tags_arrive(screen: &Screen, client: &mut Client) -> Result<()> {
    screen.step(3, "Requests for http://web.shop go through Envoy, with the workload's tags");
    answers(screen, client, &[], 20, |counts| *counts == [("web-v1", 20)].into())?;
    let echo = client.get(HOST, "/", &[])?.echo()?;
    for (header, value) in TAG_HEADERS {
        expect(echo.headers.get(header).map(String::as_str) == Some(value), || {
            format!("no {header} in {echo:?}")
        })?;
        screen.holds(format!("web-v1 sees the caller's {header}: {value}"));
    }
    expect(!echo.headers.contains_key(UNSEEN_TAG_HEADER), || format!("{UNSEEN_TAG_HEADER} in {echo:?}"))
}

fn canary(screen: &Screen, stage: &Stage, mesh: &mut Mesh, client: &mut Client) -> Result<()> {
    screen.step(4, "A canary by header: route.yaml is saved with these rules");
    save(screen, stage, mesh, CANARY)?;
    let canary = &[("canary", "yes")];
    await_answer(client, canary, "web-v2")?;
    answers(screen, client, &[], 20, |counts| *counts == [("web-v1", 20)].into())?;
    answers(screen, client, canary, 20, |counts| *counts == [("web-v2", 20)].into())
}

fn weights(screen: &Screen, stage: &Stage, mesh: &mut Mesh, client: &mut Client) -> Result<()> {
    screen.step(5, "By weight, three to one: route.yaml is saved again");
    save(screen, stage, mesh, WEIGHTS)?;
    await_answer(client, &[], "web-v2")?;
    by_weight(screen, client)
}

fn mistake(screen: &Screen, stage: &Stage, mesh: &mut Mesh, client: &mut Client) -> Result<()> {
    screen.step(6, "A mistake: route.yaml is saved with `wieght`");
    let complaint = mesh.save_broken_route(&stage.node)?;
    screen.quote(&complaint);
    let place = format!("route.yaml:{BROKEN_LINE}:");
    expect(complaint.contains(&place), || format!("the complaint does not name {place} {complaint}"))?;
    screen.holds("the file and the line are named; Envoy keeps what it has");
    by_weight(screen, client)
}

fn no_request_failed(screen: &Screen, traffic: Traffic) -> Result<()> {
    let tally = traffic.end();
    let failed = tally.failures.len();
    expect(failed == 0, || {
        format!("{failed} of {} requests failed: {:?}", tally.requests, tally.failures.first())
    })?;
    screen.holds(format!("{} requests ran beside all of this, and none failed", tally.requests));
    Ok(())
}

fn remove(screen: &Screen, stage: &Stage, pods: Pods, mesh: Mesh) -> Result<()> {
    screen.step(7, "Everything is removed");
    mesh.end()?;
    for (name, pod) in pods.all() {
        screen.show(format!("{name:<8} DEL took {}", millis(stage.detach(pod)?)));
    }
    let remains = stage.remains()?;
    expect(remains.is_empty(), || format!("something is left or has gone:\n{}", remains.join("\n")))?;
    screen.holds("links, addresses, routes, neighbours, nftables, namespaces and leases");
    screen.show("   are what they were before the first pod: nothing is left");
    Ok(())
}

fn save(screen: &Screen, stage: &Stage, mesh: &mut Mesh, rules: &str) -> Result<()> {
    screen.quote(rules);
    let took = mesh.save_route(&stage.node, rules)?;
    screen.holds(format!("Envoy acknowledged it {} after it was saved", millis(took)));
    Ok(())
}

fn await_answer(client: &mut Client, headers: &[(&str, &str)], from: &str) -> Result<()> {
    wait::until(&format!("an answer of {from}"), IN_FORCE, || {
        match client.get(HOST, "/", headers).and_then(|answer| answer.echo()) {
            Ok(echo) if echo.name == from => Ok(()),
            Ok(echo) => Err(format!("{} answered", echo.name)),
            Err(error) => Err(error.to_string()),
        }
    })
}

/// One in four of 200 is 50, give or take 6; five times that is no accident.
fn by_weight(screen: &Screen, client: &mut Client) -> Result<()> {
    answers(screen, client, &[], 200, |counts| {
        let of = |name| counts.get(name).copied().unwrap_or(0);
        of("web-v1") + of("web-v2") == 200 && (20..=80).contains(&of("web-v2"))
    })
}

type Counts<'n> = BTreeMap<&'n str, usize>;

/// Sends requests, shows who answered, and holds it against what should be.
fn answers(
    screen: &Screen,
    client: &mut Client,
    headers: &[(&str, &str)],
    count: usize,
    right: impl Fn(&Counts<'_>) -> bool,
) -> Result<()> {
    let names =
        (0..count).map(|_| Ok(client.get(HOST, "/", headers)?.echo()?.name)).collect::<Result<Vec<_>>>()?;
    let mut counts = Counts::new();
    names.iter().for_each(|name| *counts.entry(name).or_default() += 1);
    let with: String = headers.iter().map(|(name, value)| format!(" with `{name}: {value}`")).collect();
    let shown = counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ");
    let line = format!("{count} requests{with}, answered by: {shown}");
    expect(right(&counts), || line.clone())?;
    screen.holds(line);
    Ok(())
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<()> {
    let deviation = |text| Error::Shape { what: "this".to_owned(), text };
    if holds { Ok(()) } else { Err(deviation(otherwise())) }
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}
