//! Gives a file its identity before its first record needs it, where records carry one.

use super::{Worker, group::Group};
use crate::{
    parse::{bytes_before_line, carries_time},
    tail::{
        source::Source,
        uid::{Birth, FileUid, first_line},
    },
};

impl Worker {
    /// Makes the records to come carry the identity of this file, if they are to carry any.
    pub(super) fn name_file(&mut self, number: u32, id: u32) {
        if !self.config.config.thyme.record_uid {
            return;
        }
        let known = self.files.get(&id).and_then(|file| file.uid);
        let Some(uid) = known.or_else(|| self.begin_uid(number, id)) else { return };
        if let Some(group) = self.groups.get_mut(&number) {
            group.lines.suffixes.set_file(uid.digits());
        }
    }

    /// Derives the identity of a file that has none yet, and has it kept.
    fn begin_uid(&mut self, number: u32, id: u32) -> Option<FileUid> {
        let files = self.groups.get(&number)?.files.clone();
        let others = files.iter().filter(|other| **other != id);
        let known: Vec<FileUid> = others
            .filter_map(|other| self.files.get(other))
            .flat_map(|other| other.uid.into_iter().chain(other.former_uid))
            .collect();
        let (group, file) = (self.groups.get_mut(&number)?, self.files.get_mut(&id)?);
        let uid = derive(group, file.source.as_ref()?, file.inode);
        let uid = uid.distinct_from(known, file.former_uid.take());
        file.uid = Some(uid);
        self.publish(&[id]);
        Some(uid)
    }
}

/// What cannot be read gives an identity as well: of a file that begins with nothing.
fn derive(group: &mut Group, source: &Source, inode: crate::tail::identity::Inode) -> FileUid {
    let line = first_line(source).unwrap_or_default();
    let begins_at = bytes_before_line(&line, 0);
    let birth =
        (!carries_time(&line[begins_at..], &mut group.lines)).then(|| Birth::of(source, inode));
    FileUid::derive(&group.key.directory, &group.key.live, &line, birth)
}
