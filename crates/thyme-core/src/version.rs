//! What a program's `--version` says: its version, the commit that it was built from, and the day of the build.
//!
//! Whoever builds hands the last two over in the environment, `THYME_COMMIT` and `THYME_BUILD_DATE`, as `make`, the
//! Dockerfile and the release do. The day is that of the commit: one commit makes the same programs on each day.

/// The text of this program as a `&'static str`, such as `0.1.0 (commit 2afca43b1c2d, built 2026-11-30)`.
#[macro_export]
macro_rules! version {
    () => {{
        static TEXT: ::std::sync::LazyLock<String> = ::std::sync::LazyLock::new(|| {
            $crate::version::text(
                env!("CARGO_PKG_VERSION"),
                option_env!("THYME_COMMIT"),
                option_env!("THYME_BUILD_DATE"),
            )
        });
        TEXT.as_str()
    }};
}

/// The text of a version; what is empty was not stated.
pub fn text(version: &str, commit: Option<&str>, build_date: Option<&str>) -> String {
    let stated = |one: Option<&str>| one.filter(|text| !text.is_empty()).map(str::to_owned);
    let commit = stated(commit).unwrap_or_else(|| "not stated".to_owned());
    match stated(build_date) {
        Some(day) => format!("{version} (commit {commit}, built {day})"),
        None => format!("{version} (commit {commit})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a build that says commit and day, one that says neither, and one from a tree without git, whose
    /// variables are empty.
    /// Guarantees: the text says what is known, and that the commit is not.
    #[test]
    fn what_is_not_stated_is_said() {
        let all = text("1.2.3", Some("2afca43b1c2d"), Some("2026-11-30"));
        assert_eq!(all, "1.2.3 (commit 2afca43b1c2d, built 2026-11-30)");
        assert_eq!(text("1.2.3", None, None), "1.2.3 (commit not stated)");
        assert_eq!(text("1.2.3", Some(""), Some("")), "1.2.3 (commit not stated)");
    }
}
