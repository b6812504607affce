//! Which references from one namespace into another are permitted.

use std::collections::BTreeMap;

use crate::model::reference_grant::ReferenceGrant;

/// The grants by the namespace that gives them.
#[derive(Debug, Default)]
pub(super) struct Grants<'d>(BTreeMap<&'d str, Vec<&'d ReferenceGrant>>);

/// Who refers to what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reference<'a> {
    /// Group and kind of the document.
    pub(super) from: (&'a str, &'a str),
    /// Its namespace.
    pub(super) from_namespace: &'a str,
    /// Group and kind of what it refers to.
    pub(super) to: (&'a str, &'a str),
    /// The namespace of that.
    pub(super) to_namespace: &'a str,
    /// Its name.
    pub(super) to_name: &'a str,
}

impl<'d> Grants<'d> {
    pub(super) fn add(&mut self, namespace: &'d str, grant: &'d ReferenceGrant) {
        self.0.entry(namespace).or_default().push(grant);
    }

    /// Within a namespace everything is permitted; from another one, what a grant there names.
    pub(super) fn permit(&self, reference: Reference<'_>) -> bool {
        let Reference { from, from_namespace, to, to_namespace, to_name } = reference;
        let granted = |grant: &&ReferenceGrant| {
            grant.from.iter().any(|one| {
                (one.group.as_str(), one.kind.as_str(), one.namespace.as_str())
                    == (from.0, from.1, from_namespace)
            }) && grant.to.iter().any(|one| {
                (one.group.as_str(), one.kind.as_str()) == to
                    && one.name.as_ref().is_none_or(|name| name == to_name)
            })
        };
        from_namespace == to_namespace
            || self.0.get(to_namespace).is_some_and(|grants| grants.iter().any(granted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::reference_grant::{GrantFrom, GrantTo};

    const ROUTE: (&str, &str) = ("gateway.networking.k8s.io", "HTTPRoute");

    fn grant(namespace: &str, name: Option<&str>) -> ReferenceGrant {
        let from = GrantFrom { group: ROUTE.0.into(), kind: ROUTE.1.into(), namespace: namespace.into() };
        let to = GrantTo { group: String::new(), kind: "Service".into(), name: name.map(str::to_owned) };
        ReferenceGrant { from: vec![from], to: vec![to] }
    }

    fn permitted(grants: &[(&str, ReferenceGrant)], from: &str, to: &str, name: &str) -> bool {
        let mut all = Grants::default();
        grants.iter().for_each(|(namespace, grant)| all.add(namespace, grant));
        all.permit(Reference {
            from: ROUTE,
            from_namespace: from,
            to: ("", "Service"),
            to_namespace: to,
            to_name: name,
        })
    }

    #[test]
    fn a_grant_is_for_what_it_names_and_nothing_else() {
        let all = [("backends", grant("shop", None))];
        let one = [("backends", grant("shop", Some("web")))];
        assert!(permitted(&[], "shop", "shop", "web"));
        assert!(!permitted(&[], "shop", "backends", "web"));
        assert!(permitted(&all, "shop", "backends", "web"));
        assert!(!permitted(&all, "other", "backends", "web"));
        assert!(
            !permitted(&all, "backends", "shop", "web"),
            "a grant is given by the one that is referred to"
        );
        assert!(permitted(&one, "shop", "backends", "web"));
        assert!(!permitted(&one, "shop", "backends", "db"));
    }
}
