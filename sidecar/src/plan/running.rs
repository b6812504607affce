//! What an Envoy that runs has: its `/config_dump`, in the form in which the translation is shown.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Map, Value};
use thiserror::Error;

use super::{Inventory, Item};
use crate::translate::json;

const PATIENCE: Duration = Duration::from_secs(5);

/// A larger answer is not read: 10 000 clusters are about 30 MiB.
const MAX_ANSWER: u64 = 256 << 20;

/// By type: the field of a dump that lists the resources, where each of them is, and what message it is.
const DUMPS: &[(&str, &str, &str, &str)] = &[
    ("listeners", "dynamic_listeners", "/active_state/listener", "envoy.config.listener.v3.Listener"),
    ("routes", "dynamic_route_configs", "/route_config", "envoy.config.route.v3.RouteConfiguration"),
    ("clusters", "dynamic_active_clusters", "/cluster", "envoy.config.cluster.v3.Cluster"),
    (
        "endpoints",
        "dynamic_endpoint_configs",
        "/endpoint_config",
        "envoy.config.endpoint.v3.ClusterLoadAssignment",
    ),
];

/// Why Envoy's configuration is not known.
#[derive(Debug, Error)]
pub enum Error {
    /// Nobody answers, or not in time.
    #[error("cannot ask Envoy at {at} for its configuration")]
    Ask {
        /// Its admin address.
        at: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Somebody answers something else.
    #[error("what answers at {at} is no Envoy: {said}")]
    NoEnvoy {
        /// The admin address.
        at: SocketAddr,
        /// How its answer begins.
        said: String,
    },
    /// A resource in it is of a kind that is not known here.
    #[error("the Envoy at {at} has something that cannot be compared")]
    Unknown {
        /// The admin address.
        at: SocketAddr,
        /// What.
        source: json::Error,
    },
}

/// What the Envoy whose admin interface is `at` was given over xDS.
pub fn inventory(at: SocketAddr) -> Result<Inventory, Error> {
    let (head, body) = get(at, "/config_dump?include_eds").map_err(|source| Error::Ask { at, source })?;
    let no_envoy = || Error::NoEnvoy { at, said: head.lines().next().unwrap_or_default().to_owned() };
    let dump: Value = serde_json::from_slice(&body).map_err(|_not_json| no_envoy())?;
    let configs = dump.get("configs").and_then(Value::as_array).ok_or_else(no_envoy)?;
    let mut all = Inventory::new();
    for (of_type, list, place, message) in DUMPS {
        let entries = configs.iter().filter_map(|config| config.get(list)?.as_array()).flatten();
        for mut value in entries.filter_map(|entry| entry.pointer(place)).cloned() {
            if let Some(fields) = value.as_object_mut() {
                fields.remove("@type");
            }
            let value = json::normalized(message, value).map_err(|source| Error::Unknown { at, source })?;
            let name = value.get("name").or_else(|| value.get("cluster_name")).and_then(Value::as_str);
            let key = ((*of_type).to_owned(), name.unwrap_or_default().to_owned());
            all.insert(key, Item { value, origin: None });
        }
    }
    Ok(all)
}

/// Endpoints as Envoy shows them have fields filled in that nobody has set, and lack others. What is left tells which endpoint
/// is where, and how much it gets.
pub fn endpoints_alone(inventory: &mut Inventory) {
    for ((of_type, _), item) in inventory {
        if of_type == "endpoints" {
            item.value = bare(&item.value);
        }
    }
}

fn bare(assignment: &Value) -> Value {
    let mut endpoints: Vec<Value> = Vec::new();
    for locality in list(assignment, "endpoints") {
        for endpoint in list(locality, "lb_endpoints") {
            let mut kept = Map::new();
            let address = endpoint.pointer("/endpoint/address").cloned().unwrap_or_default();
            kept.insert("endpoint".into(), serde_json::json!({ "address": address }));
            let priority = locality.get("priority").filter(|priority| **priority != 0);
            let zone = locality.pointer("/locality/zone").filter(|zone| **zone != "");
            let weight = endpoint.get("load_balancing_weight").filter(|weight| **weight != 1);
            let more = [
                ("priority", priority),
                ("zone", zone),
                ("weight", weight),
                ("metadata", endpoint.get("metadata")),
            ];
            for (name, value) in more {
                kept.extend(value.map(|value| (name.to_owned(), value.clone())));
            }
            endpoints.push(Value::Object(kept));
        }
    }
    let name = assignment.get("cluster_name").cloned().unwrap_or_default();
    serde_json::json!({ "cluster_name": name, "endpoints": endpoints })
}

fn list<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The head and the body of the answer.
fn get(at: SocketAddr, path: &str) -> io::Result<(String, Vec<u8>)> {
    let mut stream = TcpStream::connect_timeout(&at, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(answer.len());
    let head = String::from_utf8_lossy(answer.get(..end).unwrap_or_default()).into_owned();
    let body = answer.get(end + 4..).unwrap_or_default();
    let chunked = head.to_ascii_lowercase().contains("\r\ntransfer-encoding: chunked");
    let body = if chunked { unchunked(body).ok_or(io::ErrorKind::InvalidData)? } else { body.to_vec() };
    Ok((head, body))
}

/// RFC 9112, section 7.1.
fn unchunked(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(body.get(..end)?).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        let start = end + 2;
        whole.extend_from_slice(body.get(start..start.checked_add(size)?)?);
        body = body.get(start.checked_add(size)?.checked_add(2)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_put_together() {
        assert_eq!(unchunked(b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n").as_deref(), Some(&b"abcde"[..]));
        for broken in [&b"3\r\nab"[..], b"", b"zz\r\n", b"ffffffffffffffff\r\nabc"] {
            assert_eq!(unchunked(broken), None);
        }
    }
}
