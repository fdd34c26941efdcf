//! Groups of components, such as `receivers`: their types, their names, and references to them.
//!
//! A component's key is `type` or `type/name`. This file knows no type.

use std::collections::BTreeMap;

use super::read::{Field, Problems, Reference, Section, unknown};

/// The list of the extensions that work.
pub(super) const IN_SERVICE: &str = "service::extensions";

/// A type of component that the agent has.
pub(super) struct Type<T> {
    /// Its name, and what else it may be called.
    pub(super) names: &'static [&'static str],
    /// Keys of the Collector that it does not take yet.
    pub(super) later: &'static [&'static str],
    /// Reads the body of the component of that key.
    pub(super) read: fn(id: &str, body: &Section<'_>) -> Option<T>,
}

/// The components of one group as they are defined.
pub(super) struct Components<T> {
    group: &'static str,
    defined: Vec<Component<T>>,
    /// Whether the group could be read, so that what is not defined is known.
    is_known: bool,
}

/// The name of a component under which the state knows it: types that have two names are called by
/// the newer one, so that `filelog/pods` and `file_log/pods` are one.
pub(super) fn canonical_name(id: &str, types: &[&[&'static str]]) -> String {
    let (kind, rest) = id.split_at(id.find('/').unwrap_or(id.len()));
    let names = types.iter().find(|names| names.contains(&kind));
    let kind = names.and_then(|names| names.last().copied()).unwrap_or(kind);
    format!("{kind}{rest}")
}

/// One defined component.
pub(super) struct Component<T> {
    /// Its key, such as `filelog/pods`.
    pub(super) id: String,
    /// Line of its key, from 1.
    line: u64,
    group: &'static str,
    /// The first name of its type; `None` if there is none.
    pub(super) kind: Option<&'static str>,
    /// What it says; `None` where that is wrong, which is noted already.
    pub(super) value: Option<T>,
}

impl<T> Component<T> {
    /// Where a key of it stands.
    pub(super) fn path(&self, key: &str) -> String {
        format!("{}::{}::{key}", self.group, self.id)
    }

    /// Notes that the component won't do.
    pub(super) fn refuse(&self, problems: &Problems, message: impl Into<String>) {
        problems.add(self.line, &format!("{}::{}", self.group, self.id), message);
    }
}

impl<T> Components<T> {
    /// Reads all of a group, used or not.
    pub(super) fn read(root: &Section<'_>, group: &'static str, types: &[Type<T>]) -> Self {
        let entries = root.field(group).map_or(Some(Vec::new()), |field| field.entries());
        let is_known = entries.is_some();
        let names: Vec<_> = types.iter().map(|known| known.names).collect();
        let mut seen = BTreeMap::new();
        let component = |(id, body): (&str, Field<'_>)| {
            if let Some(other) = seen.insert(canonical_name(id, &names), id.to_owned()) {
                body.refuse(format!("`{other}` is the same component under another name"));
            }
            let known =
                |kind: &&Type<T>| kind.names.contains(&id.split_once('/').unwrap_or((id, "")).0);
            Component {
                id: id.to_owned(),
                line: body.line(),
                group,
                kind: types.iter().find(known).and_then(|kind| kind.names.first().copied()),
                value: read_one(id, &body, group, types),
            }
        };
        let defined = entries.into_iter().flatten().map(component).collect();
        Self { group, defined, is_known }
    }

    /// Every defined component.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Component<T>> {
        self.defined.iter()
    }

    /// The component of type `kind` that `wanted` names, in a place where only such components can
    /// stand; noted unless it is among those in service.
    pub(super) fn in_service(
        &self,
        wanted: &Reference,
        kind: &str,
        in_service: &[String],
        problems: &Problems,
    ) -> Option<&Component<T>> {
        let id = &wanted.id;
        let found = self.defined.iter().find(|component| component.id == *id);
        let message = match found {
            Some(found) if found.kind != Some(kind) => format!("`{id}` is no `{kind}`"),
            Some(found) if in_service.contains(id) => return Some(found),
            // It may be the one that could not be read there.
            Some(found) if problems.is_about(IN_SERVICE) => return Some(found),
            Some(_) => format!("`{id}` is defined, but not listed in service::extensions"),
            None if !self.is_known => return None,
            None => {
                let same_kind = self.defined.iter().filter(|one| one.kind == Some(kind));
                let message =
                    unknown("extension of this type", id, same_kind.map(|one| one.id.as_str()));
                format!("`{id}` is not defined in `{}`: {message}", self.group)
            }
        };
        problems.at(&wanted.place, message);
        None
    }

    /// The component that a reference names; noted where there is none.
    pub(super) fn resolve(&self, reference: &Field<'_>) -> Option<&Component<T>> {
        let id = reference.text()?;
        let found = self.defined.iter().find(|component| component.id == id);
        if found.is_none() && self.is_known {
            let known = self.defined.iter().map(|component| component.id.as_str());
            let message = unknown("reference", &id, known);
            reference.refuse(format!("`{id}` is not defined in `{}`: {message}", self.group));
        }
        found
    }
}

fn read_one<T>(id: &str, body: &Field<'_>, group: &str, types: &[Type<T>]) -> Option<T> {
    let (kind, name) = id.split_once('/').unwrap_or((id, "-"));
    let Some(found) = types.iter().find(|known| known.names.contains(&kind)) else {
        let names: Vec<_> = types.iter().filter_map(|known| known.names.first().copied()).collect();
        let message = unknown("type", kind, names.iter().copied());
        body.refuse(format!("{message}; thyme's {group} are {}", names.join(", ")));
        return None;
    };
    if name.is_empty() {
        body.refuse("the name after `/` is missing");
        return None;
    }
    body.section(found.later, |section| (found.read)(id, section))
}
