//! Whether installed fixes wait for a reboot.
//!
//! Two witnesses: `/run/reboot-required` (written by Ubuntu's packages, and on Debian by
//! unattended-upgrades), and the installed kernels beside the running one. The kernel speaks only for the
//! running system, not for an image or a chroot. Where neither knows, the answer is "unknown" with the
//! reason.
//!
//! Deliberately absent: services that still map replaced libraries; seeing other users' processes takes a
//! capability the agent does not ask for.

use super::dpkg::Installed;
use super::kernel::{self, Running, Verdict};
use super::report::Reboot;
use super::root::Root;

pub(crate) const FLAG: &str = "/run/reboot-required";
pub(crate) const PACKAGES: &str = "/run/reboot-required.pkgs";
pub(crate) const KERNEL_RELEASE: &str = "/proc/sys/kernel/osrelease";
const KERNEL_BANNER: &str = "/proc/version";

/// Asks both witnesses.
pub(crate) fn judge(root: &Root, packages: &[Installed]) -> Reboot {
    let verdict = match root.is_running_system().then(|| running(root)).flatten() {
        Some(running) => kernel::judge(&running, packages),
        None => Verdict::NotOurs("not the running system, so no kernel to compare with".to_owned()),
    };
    let asking = root.locate(FLAG).exists().then(|| asking_packages(&root.text(PACKAGES).unwrap_or_default()));
    combine(asking, verdict)
}

fn running(root: &Root) -> Option<Running> {
    let release = root.text(KERNEL_RELEASE).ok()?.trim().to_owned();
    Some(Running { release, banner: root.text(KERNEL_BANNER).unwrap_or_default() })
}

/// Each package once, in the order they asked.
fn asking_packages(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if !names.iter().any(|known| known == line) {
            names.push(line.to_owned());
        }
    }
    names
}

fn combine(asking: Option<Vec<String>>, verdict: Verdict) -> Reboot {
    let mut reasons = Vec::new();
    match &asking {
        Some(names) if names.is_empty() => reasons.push(format!("{FLAG} is there")),
        Some(names) => reasons.push(format!("{FLAG} is there for {}", names.join(", "))),
        None => {}
    }
    let required = match verdict {
        Verdict::Newer(reason) => {
            reasons.push(reason);
            Some(true)
        }
        _ if asking.is_some() => Some(true),
        Verdict::Current => Some(false),
        Verdict::NotOurs(reason) => {
            reasons.push(reason);
            None
        }
    };
    Reboot { required, reasons }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_witness_is_enough_and_silence_is_not_no() {
        let newer = || Verdict::Newer("newer".to_owned());
        let not_ours = || Verdict::NotOurs("container".to_owned());
        for (asking, verdict, required, reasons) in [
            (None, Verdict::Current, Some(false), 0),
            (None, newer(), Some(true), 1),
            (None, not_ours(), None, 1),
            (Some(vec!["libc6".to_owned()]), Verdict::Current, Some(true), 1),
            (Some(vec![]), newer(), Some(true), 2),
            (Some(vec![]), not_ours(), Some(true), 1),
        ] {
            let found = combine(asking, verdict);
            assert_eq!((found.required, found.reasons.len()), (required, reasons), "{found:?}");
        }
    }

    #[test]
    fn the_flag_of_an_image_is_read_from_the_image() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        assert_eq!(judge(&root, &[]).required, None);
        std::fs::create_dir(dir.path().join("run")).unwrap();
        std::fs::write(dir.path().join("run/reboot-required"), "*** System restart required ***\n").unwrap();
        std::fs::write(dir.path().join("run/reboot-required.pkgs"), "linux-base\nlibc6\nlinux-base\n").unwrap();
        let found = judge(&root, &[]);
        assert_eq!(found.required, Some(true));
        assert_eq!(found.reasons, ["/run/reboot-required is there for linux-base, libc6"]);
    }
}
