//! `explain`: what would become of a request, for people and for programs.

use std::error::Error;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::yaml;
use crate::diagnostic::Origin;
use crate::explain::{
    Action, BadRequest, Chosen, Destination, Explanation, Named, Outcome, Request, explain,
};
use crate::translate::{OUTBOUND, Resources};

/// What is read of one line of `--requests`.
const MAX_LINE: usize = 1 << 20;

#[derive(Debug, Args)]
pub(super) struct Question {
    /// The request's method
    #[arg(required_unless_present = "requests")]
    method: Option<String>,
    /// Its URL as http://web/cart, or a path if there is a Host header
    #[arg(required_unless_present = "requests")]
    url: Option<String>,
    /// A header of it; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The listener that gets it
    #[arg(long, default_value = OUTBOUND)]
    listener: String,
    /// How the answer is printed
    #[arg(long, value_enum, default_value_t = Output::Human)]
    output: Output,
    /// Explain each request of a file (`-`: stdin), a JSON object with method, url and headers in each line; the answers
    /// are a JSON object a line
    #[arg(long, value_name = "FILE", conflicts_with_all = ["method", "url", "headers", "output"])]
    requests: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Human,
    /// One JSON object
    Json,
}

/// A question that was understood.
#[derive(Debug)]
pub(super) struct Asked {
    requests: Vec<Request>,
    listener: String,
    form: Form,
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Human,
    Json,
    Lines,
}

impl Question {
    /// Reads the question; an error is one of usage.
    pub(super) fn ask(self) -> Result<Asked, Box<dyn Error>> {
        let (requests, form) = match (&self.requests, self.output) {
            (Some(file), _) => (read_requests(file)?, Form::Lines),
            (None, output) => {
                let headers = self.headers.iter().map(|line| header(line)).collect::<Result<Vec<_>, _>>()?;
                let method = self.method.as_deref().unwrap_or_default();
                let request = Request::new(method, self.url.as_deref().unwrap_or_default(), &headers)?;
                (vec![request], if output == Output::Human { Form::Human } else { Form::Json })
            }
        };
        Ok(Asked { requests, listener: self.listener, form })
    }
}

impl Asked {
    /// The answers as text.
    pub(super) fn answer(&self, resources: &Resources) -> Result<String, Box<dyn Error>> {
        let mut answers = Vec::new();
        for request in &self.requests {
            let explanation = explain(resources, &self.listener, request)?;
            answers.push(match self.form {
                Form::Human => human(request, &explanation),
                Form::Json => format!("{:#}", as_json(&explanation)),
                Form::Lines => as_json(&explanation).to_string(),
            });
        }
        Ok(answers.join("\n"))
    }
}

/// As curl takes it.
fn header(line: &str) -> Result<(String, String), BadRequest> {
    let separated = line.get(1..).and_then(|rest| rest.find(':')).map(|at| line.split_at(at + 1));
    let (name, value) = separated.ok_or_else(|| BadRequest::Header(line.to_owned()))?;
    Ok((name.trim().to_owned(), value.trim_start_matches(':').trim().to_owned()))
}

fn read_requests(file: &Path) -> Result<Vec<Request>, Box<dyn Error>> {
    let stdin = file == Path::new("-");
    let reader: Box<dyn io::Read> = if stdin {
        Box::new(io::stdin())
    } else {
        Box::new(
            std::fs::File::open(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?,
        )
    };
    let mut requests = Vec::new();
    for (at, line) in BufReader::new(reader).lines().enumerate() {
        let line = line?;
        let wrong = |why: String| format!("line {} of {}: {why}", at + 1, file.display());
        if line.len() > MAX_LINE {
            return Err(wrong(format!("longer than {MAX_LINE} bytes")).into());
        }
        if !line.trim().is_empty() {
            requests.push(request(&line).map_err(wrong)?);
        }
    }
    Ok(requests)
}

fn request(line: &str) -> Result<Request, String> {
    let object: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    let url = text("url").ok_or("it has no \"url\"")?;
    let pairs = object.get("headers").and_then(Value::as_object).into_iter().flatten();
    let headers = pairs.map(|(name, value)| {
        value
            .as_str()
            .map(|value| (name.clone(), value.to_owned()))
            .ok_or_else(|| format!("header {name} is no text"))
    });
    let headers = headers.collect::<Result<Vec<_>, _>>()?;
    Request::new(text("method").unwrap_or("GET"), url, &headers).map_err(|error| error.to_string())
}

/// The shape is part of the interface (`docs/sidecar/cli.md`).
fn as_json(explanation: &Explanation) -> Value {
    let passed = explanation.passed.iter().map(|passed| with(&passed.named, json!({ "why": passed.why })));
    let mut all = json!({
        "listener": named(&explanation.listener),
        "path": explanation.path,
        "host": explanation.host.as_ref().map(|host| with(&host.named, json!({ "domain": host.domain }))),
        "passed": passed.collect::<Vec<_>>(),
    });
    let more = match &explanation.outcome {
        Outcome::NoHost => json!({ "outcome": "no host", "status": 404 }),
        Outcome::NoRoute => json!({ "outcome": "no route", "status": 404 }),
        Outcome::Routed(chosen) => routed(chosen),
        Outcome::Passed(to) => {
            json!({ "outcome": "passed on", "targets": to.iter().map(|to| target(1, to)).collect::<Vec<_>>() })
        }
    };
    if let (Some(all), Value::Object(more)) = (all.as_object_mut(), more) {
        all.extend(more);
    }
    all
}

fn routed(chosen: &Chosen) -> Value {
    let route = json!({
        "conditions": chosen.conditions,
        "tags": pairs(&chosen.tags),
        "settings": chosen.settings,
        "requestHeaders": chosen.request_headers,
        "responseHeaders": chosen.response_headers,
        "filters": chosen.filters,
        "overriddenFilters": chosen.overridden,
    });
    let route = with(&chosen.named, route);
    match &chosen.action {
        Action::Forward(targets) => {
            let targets: Vec<Value> = targets.iter().map(|to| target(to.weight, &to.destination)).collect();
            json!({ "outcome": "forward", "route": route, "targets": targets })
        }
        Action::Redirect(status) => json!({ "outcome": "redirect", "status": status, "route": route }),
        Action::Answer(status) => json!({ "outcome": "answer", "status": status, "route": route }),
    }
}

fn target(weight: u32, to: &Destination) -> Value {
    let endpoints =
        to.endpoints.iter().map(|(address, tags)| json!({ "address": address, "tags": pairs(tags) }));
    let more = json!({
        "weight": weight,
        "subset": pairs(&to.subset),
        "endpoints": endpoints.collect::<Vec<_>>(),
    });
    with(&to.cluster, more)
}

fn named(of: &Named) -> Value {
    json!({ "name": of.name, "at": of.origin.as_ref().map(ToString::to_string) })
}

fn with(of: &Named, more: Value) -> Value {
    let mut all = named(of);
    if let (Some(all), Value::Object(more)) = (all.as_object_mut(), more) {
        all.extend(more);
    }
    all
}

fn pairs(of: &[(String, String)]) -> Value {
    Value::Object(of.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect::<Map<_, _>>())
}

/// A column of labels, and behind each fact the line that it comes from.
struct Lines(String);

impl Lines {
    fn fact(&mut self, label: &str, fact: &str, origin: Option<&Origin>) {
        let origin = origin.map(|origin| format!("  [{origin}]")).unwrap_or_default();
        let line = format!("{label:<13} {fact}{origin}");
        self.0.push_str(line.trim_end());
        self.0.push('\n');
    }

    fn more(&mut self, fact: &str) {
        self.fact("", fact, None);
    }

    fn facts(&mut self, label: &str, facts: &[String]) {
        for (at, fact) in facts.iter().enumerate() {
            self.fact(if at == 0 { label } else { "" }, fact, None);
        }
    }
}

fn human(request: &Request, explanation: &Explanation) -> String {
    let mut lines = Lines(String::new());
    lines.fact("request", &format!("{} {}, host {}", request.method, request.path, request.authority), None);
    if explanation.path != request.path {
        lines.more(&format!("its path is taken for {}", explanation.path));
    }
    lines.fact("listener", &explanation.listener.name, explanation.listener.origin.as_ref());
    if let Some(host) = &explanation.host {
        let found = format!("{}, by its domain {}", host.named.name, host.domain);
        lines.fact("virtual host", &found, host.named.origin.as_ref());
    }
    for passed in &explanation.passed {
        lines.fact("not", &passed.named.name, passed.named.origin.as_ref());
        lines.more(&passed.why);
    }
    match &explanation.outcome {
        Outcome::NoHost => lines.fact("answer", "404: no virtual host has this name", None),
        Outcome::NoRoute => lines.fact("answer", "404: no route of the virtual host matches", None),
        Outcome::Routed(chosen) => routed_to(&mut lines, chosen),
        Outcome::Passed(to) => to.iter().for_each(|to| destination(&mut lines, to, "")),
    }
    lines.0.trim_end().to_owned()
}

fn routed_to(lines: &mut Lines, chosen: &Chosen) {
    lines.fact("route", &chosen.named.name, chosen.named.origin.as_ref());
    lines.more(&chosen.conditions.join("; "));
    match &chosen.action {
        Action::Redirect(status) => lines.fact("answer", &format!("{status}, a redirect"), None),
        Action::Answer(status) => lines.fact("answer", &format!("{status}, from Envoy itself"), None),
        Action::Forward(targets) => {
            let all: u64 = targets.iter().map(|target| u64::from(target.weight)).sum();
            for target in targets {
                let share = format!(", {} of {all} requests", target.weight);
                destination(lines, &target.destination, if targets.len() > 1 { &share } else { "" });
            }
        }
    }
    let joined = |pairs: &[(String, String)]| -> Vec<String> {
        pairs.iter().map(|(key, value)| format!("{key}={value}")).collect()
    };
    let tags = joined(&chosen.tags);
    lines.facts("tags", &(if tags.is_empty() { Vec::new() } else { vec![tags.join(", ")] }));
    lines.facts("to upstream", &chosen.request_headers);
    lines.facts("to client", &chosen.response_headers);
    let names: Vec<&str> =
        chosen.filters.iter().map(|name| name.rsplit('.').next().unwrap_or(name)).collect();
    lines.fact("filters", &names.join(", "), None);
    lines.facts("set by route", &chosen.overridden);
    if chosen.settings.as_object().is_some_and(|settings| !settings.is_empty()) {
        let block = yaml::block(&chosen.settings, &|_| None);
        lines.facts("settings", &block.lines().map(str::to_owned).collect::<Vec<_>>());
    }
}

fn destination(lines: &mut Lines, to: &Destination, share: &str) {
    lines.fact("cluster", &format!("{}{share}", to.cluster.name), to.cluster.origin.as_ref());
    if !to.subset.is_empty() {
        let tags: Vec<String> = to.subset.iter().map(|(key, value)| format!("{key}={value}")).collect();
        lines.more(&format!("only endpoints with {}", tags.join(", ")));
    }
    if to.endpoints.is_empty() {
        lines.more("no endpoint: requests are answered with 503");
    }
    for (address, tags) in &to.endpoints {
        let tags: String = tags.iter().map(|(key, value)| format!("  {key}={value}")).collect();
        lines.more(&format!("{address}{tags}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_written_as_for_curl() {
        for (line, name, value) in [
            ("Host: web", "Host", "web"),
            ("x-a:", "x-a", ""),
            (":authority: web", ":authority", "web"),
            ("a: b:c", "a", "b:c"),
        ] {
            assert_eq!(header(line), Ok((name.to_owned(), value.to_owned())), "{line}");
        }
        assert!(header("nothing").is_err() && header("").is_err());
    }

    #[test]
    fn a_line_of_requests_says_what_is_wrong_with_it() {
        assert_eq!(request(r#"{"url": "http://web/a"}"#).expect("a request").method, "GET");
        assert_eq!(request("{}").expect_err("no url"), "it has no \"url\"");
        assert_eq!(
            request(r#"{"url": "/", "headers": {"a": 1}}"#).expect_err("no text"),
            "header a is no text"
        );
    }
}
