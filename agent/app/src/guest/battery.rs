//! The battery, as Linux tells of it in a folder for each supply (Documentation/ABI/testing/sysfs-class-power).

use std::fs;
use std::path::Path;

use crate::limits::POWER_SUPPLIES_MAX;

/// Where the kernel tells.
pub const POWER_SUPPLIES: &str = "/sys/class/power_supply";

/// What this machine runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Battery {
    /// How full it is, or they are on average.
    pub percent: u8,
    /// Whether the machine has another supply now.
    pub on_mains: bool,
}

/// Looks; none where this machine has no battery, or nothing tells. Blocks on the (virtual) disk.
pub fn look(folder: &Path) -> Option<Battery> {
    let (mut percents, mut on_mains, mut discharges) = (Vec::new(), false, false);
    for supply in fs::read_dir(folder).ok()?.flatten().take(POWER_SUPPLIES_MAX) {
        let read = |name: &str| {
            let text = fs::read_to_string(supply.path().join(name)).unwrap_or_default();
            text.trim().to_owned()
        };
        // A mouse has a battery, too.
        if read("scope") == "Device" {
            continue;
        }
        match read("type").as_str() {
            "Battery" => {
                if let Ok(percent) = read("capacity").parse::<u8>() {
                    percents.push(u32::from(percent.min(100)));
                }
                discharges |= read("status") == "Discharging";
            }
            // `Mains`, `USB`, `Wireless`: 1 is online, 2 is online and adjustable.
            _ => on_mains |= matches!(read("online").as_str(), "1" | "2"),
        }
    }
    let count = u32::try_from(percents.len()).ok().filter(|count| *count > 0)?;
    let percent = u8::try_from(percents.iter().sum::<u32>() / count).ok()?;
    // A weak charger that cannot keep up is no mains.
    Some(Battery { percent, on_mains: on_mains && !discharges })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supply(root: &Path, name: &str, files: &[(&str, &str)]) {
        let folder = root.join(name);
        fs::create_dir_all(&folder).unwrap();
        for (file, text) in files {
            fs::write(folder.join(file), format!("{text}\n")).unwrap();
        }
    }

    #[test]
    fn a_laptop_on_battery_and_on_mains_is_told_from_a_desktop() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        assert_eq!(look(&root.join("none")), None);
        assert_eq!(look(root), None);
        supply(root, "hidpp_battery_0", &[("type", "Battery"), ("scope", "Device"), ("capacity", "5")]);
        supply(root, "AC", &[("type", "Mains"), ("online", "1")]);
        assert_eq!(look(root), None, "a mouse's battery is none of this machine");
        supply(root, "BAT0", &[("type", "Battery"), ("capacity", "80"), ("status", "Charging")]);
        assert_eq!(look(root), Some(Battery { percent: 80, on_mains: true }));
        supply(root, "BAT1", &[("type", "Battery"), ("capacity", "20"), ("status", "Unknown")]);
        assert_eq!(look(root), Some(Battery { percent: 50, on_mains: true }));
        supply(root, "AC", &[("online", "0")]);
        supply(root, "BAT0", &[("status", "Discharging")]);
        assert_eq!(look(root), Some(Battery { percent: 50, on_mains: false }));
        supply(root, "ucsi", &[("type", "USB"), ("online", "1")]);
        assert_eq!(look(root), Some(Battery { percent: 50, on_mains: false }), "it discharges all the same");
        supply(root, "BAT0", &[("capacity", "nonsense")]);
        supply(root, "BAT1", &[("capacity", "250")]);
        assert_eq!(look(root), Some(Battery { percent: 100, on_mains: false }));
    }
}
