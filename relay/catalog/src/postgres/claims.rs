//! Claims: short transactions that take what is free (`FOR UPDATE SKIP LOCKED`), many rows at once.

use std::collections::BTreeSet;
use std::time::Duration;

use lighter_protocol::{Mailbox, MessageId, UnixTime};

use super::error::DbError;
use super::leases::Holder;
use super::pool::Connection;
use super::queries::{after_position, delivery_of, due_of, int, number};
use crate::leases::{Claim, ClaimedDeliveries, ClaimedHandOvers, Fence};
use crate::rows::Position;

type Result<T> = std::result::Result<T, DbError>;

/// Whether a row with a holder is somebody else's: that relay is alive.
macro_rules! held_by_another {
    ($row:literal, $own:literal) => {
        concat!(
            "(",
            $row,
            ".holder IS NOT NULL AND ",
            $row,
            ".holder <> ",
            $own,
            " AND EXISTS (
                 SELECT FROM lighter.relays
                 WHERE relays.incarnation = ",
            $row,
            ".holder AND relays.holds_until > now()))"
        )
    };
}

/// Takes hand-overs that are due and nobody else's.
pub(super) async fn hand_overs(
    connection: &mut Connection,
    holder: &Holder,
    now: UnixTime,
    count_max: i64,
    except: &BTreeSet<MessageId>,
) -> Result<ClaimedHandOvers> {
    const CLAIM: &str = concat!(
        "WITH free AS (
             SELECT message, recipient, lapsed FROM lighter.hand_overs AS due
             WHERE state = 0 AND at <= $1 AND message <> ALL($2) AND NOT ",
        held_by_another!("due", "$4"),
        "    ORDER BY at, message, recipient, lapsed LIMIT $3 FOR UPDATE SKIP LOCKED
         )
         UPDATE lighter.hand_overs AS taken SET holder = $4, fence = fence + 1 FROM free
         WHERE taken.message = free.message AND taken.recipient = free.recipient AND taken.lapsed = free.lapsed
         RETURNING taken.message, taken.recipient, taken.lapsed, taken.state, taken.at, taken.attempts, taken.fence"
    );
    let except: Vec<&[u8]> = except.iter().map(|id| id.0.as_slice()).collect();
    let rows = connection.query(CLAIM, &[&int(now.0), &except, &count_max, &holder.incarnation]).await?;
    let claim = |row| {
        let due = due_of(row)?;
        let number = number(row.try_get(6)?)?;
        Ok(Claim { due, fence: Fence { message: due.message, hand_over: due.hand_over, number } })
    };
    let mut claims = rows.iter().map(claim).collect::<Result<Vec<_>>>()?;
    // The update gives them in whatever order it likes.
    claims.sort_by_key(|claim| (claim.due.since, claim.due.message, claim.due.hand_over));
    let next = next_due(connection, holder, now).await?;
    Ok(ClaimedHandOvers { claims, next })
}

/// When to look again: when the next one is due, or what another relay holds may be free.
async fn next_due(connection: &mut Connection, holder: &Holder, now: UnixTime) -> Result<Option<UnixTime>> {
    const NEXT: &str = concat!(
        "SELECT (SELECT at FROM lighter.hand_overs WHERE state = 0 AND at > $1 ORDER BY at LIMIT 1),
                EXISTS (SELECT FROM lighter.hand_overs AS due WHERE state = 0 AND at <= $1 AND ",
        held_by_another!("due", "$2"),
        ")"
    );
    let rows = connection.query(NEXT, &[&int(now.0), &holder.incarnation]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let next = row.try_get::<_, Option<i64>>(0)?.map(super::queries::time).transpose()?;
    let freed = row.try_get::<_, bool>(1)?.then(|| now.plus(holder.lease));
    Ok(next.into_iter().chain(freed).min())
}

/// Puts off what was claimed, where it still is, and gives it back.
pub(super) async fn postpone(
    connection: &mut Connection,
    fences: &[Fence],
    attempts: u32,
    next: UnixTime,
) -> Result<()> {
    const UPDATE: &str = "UPDATE lighter.hand_overs SET attempts = $5, at = $6, holder = NULL
         FROM unnest($1::bytea[], $2::bigint[], $3::boolean[], $4::bigint[]) AS held (message, recipient, lapsed, fence)
         WHERE hand_overs.message = held.message AND hand_overs.recipient = held.recipient
             AND hand_overs.lapsed = held.lapsed AND hand_overs.fence = held.fence AND state = 0";
    let messages: Vec<&[u8]> = fences.iter().map(|fence| fence.message.0.as_slice()).collect();
    let recipients: Vec<i64> = fences.iter().map(|fence| fence.hand_over.recipient.into()).collect();
    let lapsed: Vec<bool> = fences.iter().map(|fence| fence.hand_over.lapsed).collect();
    let numbers: Vec<i64> = fences.iter().map(|fence| int(fence.number)).collect();
    let attempts = i64::from(attempts);
    connection.execute(UPDATE, &[&messages, &recipients, &lapsed, &numbers, &attempts, &int(next.0)]).await?;
    Ok(())
}

/// Takes deliveries that wait for a mailbox and are nobody else's.
pub(super) async fn deliveries(
    connection: &mut Connection,
    holder: &Holder,
    mailbox: &Mailbox,
    after: Option<Position>,
    count_max: i64,
) -> Result<ClaimedDeliveries> {
    const CLAIM: &str = concat!(
        "WITH page AS (
             SELECT * FROM lighter.deliveries
             WHERE mailbox = $1 AND state <= 2 AND (accepted, id) > ($2, $3) ORDER BY accepted, id LIMIT $4
         ), free AS (
             SELECT waiting.id FROM lighter.deliveries AS waiting JOIN page USING (id)
             WHERE waiting.state <= 2 AND waiting.holder IS DISTINCT FROM $5 AND NOT ",
        held_by_another!("waiting", "$5"),
        "    FOR UPDATE OF waiting SKIP LOCKED
         ), taken AS (
             UPDATE lighter.deliveries SET holder = $5, fence = deliveries.fence + 1 FROM free
             WHERE deliveries.id = free.id RETURNING deliveries.id
         )
         SELECT page.id, message, recipient, mailbox, accepted, expires, size, generation, ticket, noticed, state, store,
             release, taken.id IS NOT NULL OR coalesce(holder = $5, false)
         FROM page LEFT JOIN taken USING (id) ORDER BY accepted, page.id"
    );
    let (accepted, id) = after_position(after);
    let parameters: super::pool::Parameters<'_> =
        &[&mailbox.as_str(), &accepted, &id, &count_max, &holder.incarnation];
    let rows = connection.query(CLAIM, parameters).await?;
    let mut claimed = ClaimedDeliveries::default();
    for row in &rows {
        let delivery = delivery_of(row)?;
        claimed.last = Some(delivery.position());
        if row.try_get(13)? {
            claimed.rows.push(delivery);
        } else {
            claimed.free_in = Some(holder.lease);
        }
    }
    Ok(claimed)
}

/// Gives back what this relay holds for a mailbox: others may offer it at once.
pub(super) async fn give_back(connection: &mut Connection, holder: &Holder, mailbox: &Mailbox) -> Result<()> {
    const UPDATE: &str =
        "UPDATE lighter.deliveries SET holder = NULL WHERE mailbox = $1 AND state <= 2 AND holder = $2";
    if connection.execute(UPDATE, &[&mailbox.as_str(), &holder.incarnation]).await? > 0 {
        super::news::tell(connection, holder, &[super::News::Waiting(mailbox.clone())]).await?;
    }
    Ok(())
}

/// Gives back everything: what this relay held is anybody's at once.
pub(super) async fn give_back_all(connection: &mut Connection, holder: &Holder) -> Result<()> {
    const UPDATE: &str = "UPDATE lighter.relays SET holds_until = now() - make_interval(secs => $2)
         WHERE incarnation = $1";
    let second = Duration::from_secs(1).as_secs_f64();
    connection.execute(UPDATE, &[&holder.incarnation, &second]).await?;
    super::news::tell(connection, holder, &[super::News::Missed]).await
}
