use proptest::prelude::*;

use super::*;

/// The catalog's side: what is due when, with the tries that each will need.
type Rows = BTreeMap<(MessageId, u32), (UnixTime, u32)>;

fn id(number: u8) -> MessageId {
    MessageId([number; 16])
}

fn fetch(
    queue: &mut HandOvers<u32>,
    rows: &Rows,
    now: UnixTime,
    count_max: usize,
    except: &BTreeSet<MessageId>,
) {
    let due = rows.iter().filter(|((message, _), (at, _))| *at <= now && !except.contains(message));
    let page = due.map(|((message, recipient), _)| (*message, *recipient)).take(count_max).collect();
    let next = rows.values().map(|(at, _)| *at).filter(|at| *at > now).min();
    queue.handle_page(page, next);
}

#[test]
fn what_is_due_of_one_message_is_handed_over_together_and_once() {
    let mut queue = HandOvers::default();
    let rows = Rows::from([((id(1), 0), (UnixTime(0), 1)), ((id(1), 1), (UnixTime(0), 1))]);
    let Some(Task::Fetch { count_max, except }) = queue.poll() else { panic!("it begins by asking") };
    queue.handle_due();
    fetch(&mut queue, &rows, UnixTime(0), count_max, &except);
    assert_eq!(queue.poll(), Some(Task::HandOver { message: id(1), due: vec![0, 1] }));
    let Some(Task::Fetch { except, .. }) = queue.poll() else { panic!("something came while it was asking") };
    assert_eq!(except, BTreeSet::from([id(1)]));
    fetch(&mut queue, &rows, UnixTime(0), count_max, &except);
    assert_eq!(queue.poll(), None);
}

#[test]
fn with_nothing_due_there_is_no_timer() {
    let mut queue = HandOvers::<u32>::default();
    queue.poll();
    queue.handle_page(Vec::new(), None);
    assert_eq!((queue.poll(), queue.next_time()), (None, None));
}

proptest! {
    /// Whatever the next hop does, every hand-over is done in the end, none twice at once, and never too many at once.
    #[test]
    fn nothing_is_lost_or_done_twice_at_once(
        messages in prop::collection::vec((1..4_u32, 0..3_u32, 0..50_u64), 1..60), turns in any::<u64>(),
    ) {
        let mut rows = Rows::new();
        let mut coming: Vec<_> = messages.iter().zip(0_u8..).collect();
        let mut queue = HandOvers::default();
        let mut now = UnixTime(0);
        let mut running = Vec::<(MessageId, Vec<u32>)>::new();
        let mut turn = turns;
        for _ in 0..20_000 {
            turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            match queue.poll() {
                Some(Task::Fetch { count_max, except }) => {
                    fetch(&mut queue, &rows, now, count_max, &except);
                    continue;
                }
                Some(Task::HandOver { message, due }) => {
                    prop_assert!(running.iter().all(|(other, _)| *other != message), "twice at once");
                    running.push((message, due));
                    prop_assert!(running.len() <= HAND_OVERS_MAX);
                    continue;
                }
                None => {}
            }
            if let Some(((recipients, tries, _), number)) = (turn % 3 == 0).then(|| coming.pop()).flatten() {
                rows.extend((0..*recipients).map(|recipient| ((id(number), recipient), (now, *tries))));
                queue.handle_due();
            } else if !running.is_empty() {
                let pick = usize::try_from(turn >> 40).unwrap() % running.len();
                let (message, due) = running.swap_remove(pick);
                for recipient in due {
                    let (at, tries) = rows.get_mut(&(message, recipient)).expect("handed over when it was done");
                    if *tries == 0 {
                        rows.remove(&(message, recipient));
                    } else {
                        *tries -= 1;
                        *at = UnixTime(now.0 + 1 + (turn >> 50) % 20);
                    }
                }
                queue.handle_done(&message);
            } else if let Some(next) = queue.next_time() {
                now = now.max(next);
                queue.handle_time(now);
            } else if coming.is_empty() {
                break;
            }
        }
        prop_assert!(rows.is_empty(), "left: {rows:?}");
    }
}
