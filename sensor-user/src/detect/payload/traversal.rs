//! Text for a file system: paths that climb, and files that are asked for to see whether others can be.

/// Files that are asked for to see whether others can be.
const FILES: [&str; 9] = [
    "/etc/passwd",
    "/etc/shadow",
    "/etc/hosts",
    "/proc/self/",
    "win.ini",
    "boot.ini",
    "web-inf/web.xml",
    "/.ssh/id_",
    "/.aws/credentials",
];

/// A value that climbs: three steps, or fewer to a well-known file, or the file itself and nothing else.
pub(super) fn is_traversal(text: &str) -> bool {
    let steps = text.matches("../").count() + text.matches("..\\").count();
    let file = FILES.iter().any(|file| text.contains(file));
    let bare = text.trim_end_matches('\0').trim_start_matches("file://");
    let alone = FILES.iter().take(4).any(|file| bare.starts_with(file)) && !text.contains(' ');
    (steps >= 3 && (text.starts_with('.') || text.starts_with('/') || text.contains("/../../../")))
        || (steps >= 1 && file)
        || alone
        || (steps >= 1 && text.contains('\0'))
}

/// A path that climbs above the root, or whose steps were hidden.
pub(super) fn leaves_root(path: &str, times: u8) -> bool {
    let mut depth = 0_i32;
    let mut below = 0_i32;
    for segment in path.split(['/', '\\']) {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        below = below.min(depth);
    }
    let steps = path.contains("../") || path.contains("..\\") || path.contains("..;/");
    let file = FILES.iter().any(|file| path.contains(file));
    below < 0 || (steps && times >= 2) || (steps && file) || path.contains("..;/")
}
