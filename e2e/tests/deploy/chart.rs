//! What `helm template` makes of our chart. Go's template language is that of another implementation of it, and of Helm's functions
//! there are those that our templates use. Where there is a `helm` it is asked, too, and only it checks values against the schema.

use std::fs;
use std::io::ErrorKind;
use std::process::{Command, Output};

use gtmpl::{Context, FuncError, Template, Value as Term};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::objects::{deploy, parse, read};

/// The chart's values as they are by themselves.
pub(crate) fn defaults() -> Value {
    read(&deploy().join("helm/weft/values.yaml")).remove(0)
}

/// The objects of a release in `namespace` with these values over the defaults.
pub(crate) fn template(values: &Value, namespace: &str) -> Vec<Value> {
    let mut all = defaults();
    merge(&mut all, values);
    let about = &read(&deploy().join("helm/weft/Chart.yaml"))[0];
    let context = json!({
        "Values": all,
        "Release": { "Namespace": namespace },
        "Chart": { "AppVersion": about["appVersion"] },
    });
    let templates =
        fs::read_dir(deploy().join("helm/weft/templates")).unwrap().map(|entry| entry.unwrap().path());
    let manifests = templates.filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    manifests.flat_map(|path| parse(&render(&fs::read_to_string(path).unwrap(), &context))).collect()
}

/// A command of Helm itself for the chart with these values, where there is one: `$WEFT_HELM`, or `helm`.
pub(crate) fn helm(command: &[&str], values: &Value) -> Option<Output> {
    let given = std::env::var_os("WEFT_HELM").filter(|path| !path.is_empty());
    let program = given.unwrap_or_else(|| "helm".into());
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), values.to_string()).unwrap();
    let mut helm = Command::new(program);
    helm.args(command).arg(deploy().join("helm/weft")).arg("--values").arg(file.path());
    match helm.output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("there is no helm (scripts/helm gets one), so it was not asked");
            None
        }
        output => Some(output.unwrap()),
    }
}

/// Maps are merged, everything else is replaced, as Helm does it.
fn merge(values: &mut Value, over: &Value) {
    match (values, over) {
        (Value::Object(values), Value::Object(over)) => {
            over.iter()
                .for_each(|(name, over)| merge(values.entry(name.clone()).or_insert(Value::Null), over));
        }
        (values, over) => *values = over.clone(),
    }
}

fn render(text: &str, context: &Value) -> String {
    let mut template = Template::default();
    template.add_func("toYaml", to_json);
    template.add_func("toJson", to_json);
    template.add_func("toPrettyJson", to_json);
    template.add_func("nindent", nindent);
    template.add_func("quote", quote);
    template.add_func("sha256sum", sha256sum);
    template.add_func("default", default);
    template.parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    template.render(&Context::from(term(context))).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// JSON on one line is YAML, too.
fn to_json(args: &[Term]) -> Result<Term, FuncError> {
    let [value] = args else { return Err(FuncError::ExactlyXArgs("toYaml".into(), 1)) };
    Ok(value_of(value).to_string().into())
}

fn quote(args: &[Term]) -> Result<Term, FuncError> {
    let [value] = args else { return Err(FuncError::ExactlyXArgs("quote".into(), 1)) };
    let text = match value_of(value) {
        Value::String(text) => text,
        other => other.to_string(),
    };
    Ok(Value::from(text).to_string().into())
}

fn sha256sum(args: &[Term]) -> Result<Term, FuncError> {
    let [Term::String(text)] = args else { return Err(FuncError::ExactlyXArgs("sha256sum".into(), 1)) };
    Ok(Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>().into())
}

fn nindent(args: &[Term]) -> Result<Term, FuncError> {
    let [Term::Number(width), Term::String(text)] = args else {
        return Err(FuncError::ExactlyXArgs("nindent".into(), 2));
    };
    let margin = " ".repeat(usize::try_from(width.as_u64().unwrap()).unwrap());
    Ok(text.lines().map(|line| format!("\n{margin}{line}")).collect::<String>().into())
}

fn default(args: &[Term]) -> Result<Term, FuncError> {
    let [instead, given] = args else { return Err(FuncError::ExactlyXArgs("default".into(), 2)) };
    let is_empty = matches!(given, Term::NoValue | Term::Nil) || *given == Term::from("");
    Ok(if is_empty { instead.clone() } else { given.clone() })
}

fn term(value: &Value) -> Term {
    match value {
        Value::Null => Term::Nil,
        Value::Bool(value) => (*value).into(),
        Value::Number(value) => value.as_i64().map_or_else(|| value.as_f64().unwrap().into(), Into::into),
        Value::String(value) => value.clone().into(),
        Value::Array(items) => Term::Array(items.iter().map(term).collect()),
        Value::Object(fields) => {
            Term::Map(fields.iter().map(|(name, value)| (name.clone(), term(value))).collect())
        }
    }
}

fn value_of(term: &Term) -> Value {
    match term {
        Term::Bool(value) => (*value).into(),
        Term::Number(value) => value.as_i64().map_or_else(|| json!(value.as_f64()), Into::into),
        Term::String(value) => value.clone().into(),
        Term::Array(items) => items.iter().map(value_of).collect(),
        Term::Map(fields) | Term::Object(fields) => {
            fields.iter().map(|(name, term)| (name.clone(), value_of(term))).collect()
        }
        Term::NoValue | Term::Nil | Term::Function(_) => Value::Null,
    }
}
