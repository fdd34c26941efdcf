//! What stands around the content of a file of the state directory: a first line with a name and
//! version, the CRC-32 and the length of what follows, so that damage is noticed.

/// Why a file can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first line isn't one of ours, or of a version that this agent doesn't know.
    #[error("line 1: expected `{0} crc32=… bytes=…`")]
    Header(&'static str),
    /// It says that an older version can't read it.
    #[error("line 1: a later version of the agent wrote it; expected `{0}`")]
    Later(&'static str),
    /// The length or the CRC disagree with the first line.
    #[error("the content is not what line 1 announces: it is damaged or cut short")]
    Damaged,
}

/// The file's bytes: `magic` is its name and version.
pub(crate) fn seal(magic: &'static str, content: &[u8]) -> Vec<u8> {
    let crc32 = crc32fast::hash(content);
    let mut out = format!("{magic} crc32={crc32:08x} bytes={}\n", content.len()).into_bytes();
    out.extend_from_slice(content);
    out
}

/// The content of what [`seal`] made.
pub(crate) fn open<'a>(magic: &'static str, bytes: &'a [u8]) -> Result<&'a [u8], FrameError> {
    match next(magic, bytes)? {
        (content, []) => Ok(content),
        _ => Err(FrameError::Damaged),
    }
}

/// The content of what [`seal`] made, where more may follow, and what follows.
pub(crate) fn next<'a>(
    magic: &'static str,
    bytes: &'a [u8],
) -> Result<(&'a [u8], &'a [u8]), FrameError> {
    let header = FrameError::Header(magic);
    let end = memchr::memchr(b'\n', bytes).ok_or(header)?;
    let line = std::str::from_utf8(&bytes[..end]).map_err(|_| header)?;
    let (crc32, length) = parse(magic, line).ok_or(if is_later(magic, line) {
        FrameError::Later(magic)
    } else {
        header
    })?;
    let (content, rest) = bytes[end + 1..].split_at_checked(length).ok_or(FrameError::Damaged)?;
    if crc32fast::hash(content) != crc32 {
        return Err(FrameError::Damaged);
    }
    Ok((content, rest))
}

/// Whether a first line has our name and a higher version than `magic`.
fn is_later(magic: &str, line: &str) -> bool {
    let parts = |text: &str| -> Option<(String, u32)> {
        let mut words = text.split(' ');
        Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
    };
    match (parts(magic), parts(line)) {
        (Some((name, known)), Some((found, version))) => name == found && version > known,
        _ => false,
    }
}

fn parse(magic: &str, line: &str) -> Option<(u32, usize)> {
    let rest = line.strip_prefix(magic)?.strip_prefix(" crc32=")?;
    let (crc32, length) = rest.split_once(" bytes=")?;
    Some((u32::from_str_radix(crc32, 16).ok()?, length.parse().ok()?))
}
