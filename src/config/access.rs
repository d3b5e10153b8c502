//! Who may open the files that must stay private: keys, secrets, databases.
//!
//! Owner and group are chosen by the operator (a secret mounted for the group of a service is normal).
//! Anyone else on the machine is a stranger, and a file open to strangers is refused with the command that
//! closes it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The bits of a mode that concern neither owner nor group.
const OTHERS: u32 = 0o007;

/// The reason why `file` is refused: others may read or write it. `None` when they may not, or when
/// there is no such file.
#[must_use]
pub fn open_to_others(file: &Path) -> Option<String> {
    let mode = std::fs::metadata(file).ok()?.permissions().mode() & OTHERS;
    let what = match (mode & 0o004 != 0, mode & 0o002 != 0) {
        (true, true) => "read and written",
        (true, false) => "read",
        (false, true) => "written",
        (false, false) => return None,
    };
    let file = file.display();
    Some(format!("{file} can be {what} by others than its owner and its group; run: chmod o-rwx {file}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_and_group_may_and_others_may_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        assert_eq!(open_to_others(&file), None);
        std::fs::write(&file, "x").unwrap();
        for (mode, what) in [
            (0o600, None),
            (0o640, None),
            (0o660, None),
            (0o661, None),
            (0o604, Some("read")),
            (0o602, Some("written")),
            (0o666, Some("read and written")),
        ] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            let told = open_to_others(&file);
            let wanted = what.map(|what| {
                let file = file.display();
                format!(
                    "{file} can be {what} by others than its owner and its group; run: chmod o-rwx {file}"
                )
            });
            assert_eq!(told, wanted, "{mode:o}");
        }
    }
}
