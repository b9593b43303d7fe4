use lighter_transport::limiter::Rate;

use super::by_hand::{HandLimit, Pause};
use super::*;

#[test]
fn what_is_said_by_hand_holds_at_once_and_after_a_restart_and_letting_go_says_that_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let config = GuestConfig { battery_percent_min: 0, ..GuestConfig::default() };
    let guest = Guest::new(config.clone(), Some(folder.path()));
    let room = guest.room();
    guest.say(Wish::Pause(Pause { until: None, everything: false })).unwrap();
    let limit = HandLimit { download: Some("1M".parse().unwrap()), upload: None, until: None };
    let view = guest.say(Wish::Limit(limit)).unwrap();
    assert_eq!(view.lines().len(), 2, "{view}");
    assert!(guest.is_held() && guest.down.allowance().holds(Class::Bulk));
    let again = Guest::new(config.clone(), Some(folder.path()));
    assert_eq!(again.view(), view);
    assert_eq!(again.down.allowance().rate, Rate::Limited("1M".parse::<amounts::ByteRate>().unwrap().0));
    assert_eq!(again.up.allowance().rate, Rate::Any);
    assert!(!room.has_changed().unwrap());
    guest.say(Wish::Resume).unwrap();
    assert!(room.has_changed().unwrap() && !guest.is_held());
    guest.say(Wish::Unlimit).unwrap();
    assert!(Guest::new(config, Some(folder.path())).view().is_nothing());
}

#[test]
fn a_configuration_that_cannot_be_used_changes_nothing_and_is_told_of() {
    let config = GuestConfig { battery_percent_min: 0, ..GuestConfig::default() };
    let guest = Guest::new(config.clone(), None);
    guest.configure(Ok(GuestConfig { upload: Some("1M".parse().unwrap()), ..config }));
    let view = guest.view();
    assert!(view.upload.is_some());
    guest.configure(Err("line 3".to_owned()));
    assert_eq!((guest.view(), guest.problem()), (view, Some("line 3".to_owned())));
}
