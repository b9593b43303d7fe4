//! Opening a segment: on members that are there, on others where those fail, and closing what has to be closed.

use super::*;

/// A segment to be opened.
pub(super) struct Plan {
    pub(super) storage_day: Day,
    pub(super) deletion_day: Day,
    pub(super) day_key: Arc<DayKey>,
    /// What its first catalog record links to.
    pub(super) tail: sealing::Link,
    /// Until then, members are waited for.
    pub(super) until: Instant,
}

impl Lane {
    /// Opens a segment as planned, on members that are there; on others where those fail. It closes whatever has to be
    /// closed, and so the length of that is decided.
    // SPEC: C5
    pub(super) async fn open_segment(&mut self, plan: Plan) -> Result<(), WriteError> {
        let mut pause = OPEN_PAUSE;
        loop {
            let (epoch, members, closed) = self.shared.choose_members(&self.unfinished, plan.until).await?;
            let header = self.take_in(&plan, epoch, members, closed);
            let is_open = self.shared.open_on_members(&header, epoch).await;
            let day_key = Arc::clone(&plan.day_key);
            let (next, acked) = (RECORDS_AT, RECORDS_AT);
            self.active = Some(Active {
                header: Arc::clone(&header),
                day_key,
                next,
                records: 0,
                acked,
                kept: acked,
                tail: plan.tail,
            });
            if is_open {
                self.shared.take_closed(&header);
                return Ok(());
            }
            self.retire(None); // it has no records, wherever it is
            if self.shared.is_fenced() {
                return Err(WriteError::Fenced);
            }
            if !self.shared.state().has_others(self.shared.config.copies, Instant::now()) {
                if Instant::now() + pause > plan.until {
                    return Err(WriteError::Unavailable);
                }
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        }
    }

    /// Takes a new segment into the state, with its day key wrapped in the same moment: who changes the array key while
    /// holding the state finds it there, or it has the new one.
    fn take_in(
        &self,
        plan: &Plan,
        epoch: Epoch,
        members: Vec<Member>,
        closed: Vec<Closed>,
    ) -> Arc<SegmentHeader> {
        let segment = SegmentId::draw(&mut *self.shared.chance());
        let mut state = self.shared.state();
        let header = Arc::new(SegmentHeader {
            segment,
            class: self.class,
            storage_day: plan.storage_day,
            deletion_day: plan.deletion_day,
            epoch,
            writer: self.shared.peer,
            acknowledged_after: self.shared.config.acknowledged_after(members.len()),
            members,
            day_key: Some(self.shared.wrap_day_key(&plan.day_key)),
            closed,
        });
        let entry = Entry {
            header: Arc::clone(&header),
            day_key: Some(Arc::clone(&plan.day_key)),
            copies: vec![None; header.members.len()],
            moved: BTreeMap::new(),
            length: RECORDS_AT,
            on_all: RECORDS_AT,
            is_decided: false,
            stage: Stage::Active,
        };
        state.segments.insert(segment, entry);
        header
    }
}

impl Shared {
    /// The header block, with the day's key, is durable on all members before the first record (SPEC C10). Says whether
    /// it is; members that fail are avoided for a while.
    async fn open_on_members(&self, header: &SegmentHeader, epoch: Epoch) -> bool {
        let block: Bytes = header.encode().into();
        let time_max = self.state().patience(&header.members, &self.config, Instant::now());
        let opens = header.members.iter().map(async |member| {
            let link = self.state().live(&member.peer).map(|live| Arc::clone(&live.writes));
            let request = Request::Open { unit: member.unit, epoch, is_anew: false };
            let opened = match &link {
                None => Err(LinkError::Closed),
                Some(link) => link.done(&request, vec![block.clone()], time_max).await,
            };
            let Err(error) = opened else { return true };
            tracing::warn!(server = %member.peer, %error, "a segment was not opened");
            if let Some(server) = self.state().server_mut(&member.peer) {
                server.health.fail(Instant::now());
            }
            match error {
                LinkError::Refused(Refusal::Fenced { present }) => self.saw_fence(present),
                LinkError::Refused(_) => {}
                _ => link.iter().for_each(|link| link.close()),
            }
            false
        });
        let opened = futures_util::future::join_all(opens).await;
        opened.into_iter().all(|is_open| is_open)
    }

    /// What the header of an open segment says of others is durable: it counts from now on.
    fn take_closed(&self, header: &SegmentHeader) {
        let mut state = self.state();
        for closed in &header.closed {
            if let Some(entry) = state.segments.get_mut(&closed.segment) {
                entry.is_decided = true;
            }
            if closed.goes_on {
                let continued = Continued { length: closed.length, segment: header.segment };
                state.continued.insert(closed.segment, continued);
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Members for a new segment, its epoch, and what it closes. Waits for members until `until`.
    async fn choose_members(
        &self,
        unfinished: &[Closed],
        until: Instant,
    ) -> Result<(Epoch, Vec<Member>, Vec<Closed>), WriteError> {
        loop {
            let joined = self.joined.notified();
            {
                let mut state = self.state();
                let copies = self.config.copies;
                let closed = state.to_close(unfinished);
                if state.is_writable(copies)
                    && closed.len() <= CLOSED_MAX
                    && let Ok(members) =
                        state.pick_members(&self.peer, self.config.policy, Instant::now(), &mut self.chance())
                {
                    return Ok((state.epoch, members, closed));
                }
            }
            if timeout_at(until, joined).await.is_err() {
                return Err(WriteError::Unavailable);
            }
        }
    }
}

/// Between two tries to open a segment on the same members; doubling.
pub(super) const OPEN_PAUSE: Duration = Duration::from_millis(50);
