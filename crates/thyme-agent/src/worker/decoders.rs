//! How many archives a worker decompresses at a time. A decoder takes some memory, and a node that is
//! read for the first time has thousands of archives. One that has a decoder keeps it to its end:
//! to take it away means to decompress again from the start.

use super::{Worker, group::TailedFile};
use crate::{limits::DECODERS_MAX, tail::source::Source};

impl Worker {
    /// Whether the file may be read now: it is plain, or it has a decoder or may have one.
    pub(super) fn may_decode(&mut self, number: u32, id: u32) -> bool {
        let Some(file) = self.files.get(&id) else { return true };
        let Some(Source::Archive(archive)) = &file.source else { return true };
        if archive.is_decoding() || archive.end().is_some() {
            return true;
        }
        if self.decoding.len() >= DECODERS_MAX {
            let files = &self.files;
            self.decoding.retain(|other| {
                files.get(other).is_some_and(
                    |file| matches!(&file.source, Some(Source::Archive(one)) if one.is_decoding()),
                )
            });
        }
        if self.decoding.len() >= DECODERS_MAX && !self.take_decoder_for(number) {
            return false;
        }
        if !self.decoding.contains(&id) {
            self.decoding.push(id);
        }
        true
    }

    /// Takes a decoder away from a file that would keep this group waiting for ever: one of the group
    /// itself, whose turn comes later, or, where urgent files go before all others, one that isn't.
    fn take_decoder_for(&mut self, number: u32) -> bool {
        let must_yield = |other: &u32| {
            self.files
                .get(other)
                .is_none_or(|file| file.group == number || (self.is_rescuing && !file.is_urgent()))
        };
        let Some(place) = self.decoding.iter().position(must_yield) else { return false };
        let other = self.decoding.swap_remove(place);
        self.release_decoder(other);
        true
    }

    /// Whether no more archives have a decoder than may.
    pub(super) fn has_decoders_within_limit(&self) -> bool {
        let is_decoding = |file: &TailedFile| matches!(&file.source, Some(Source::Archive(archive)) if archive.is_decoding());
        self.files.values().filter(|file| is_decoding(file)).count() <= DECODERS_MAX
    }

    /// Gives a file's decoder up, if it has one.
    pub(super) fn release_decoder(&mut self, id: u32) {
        let source = self.files.get_mut(&id).and_then(|file| file.source.as_mut());
        if let Some(Source::Archive(archive)) = source {
            archive.release();
        }
    }
}
