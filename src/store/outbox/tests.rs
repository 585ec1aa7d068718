use super::super::testing::with;
use super::*;

const PENDING: &str = r#"{"state":"pending"}"#;
const JUDGED: &str = r#"{"state":"judged","verdict":{}}"#;
const DONE: &str = r#"{"state":"done","verdict":{}}"#;

/// The outbox over one alert table, on one connection.
struct Fixture(Connection);

impl Fixture {
    fn new() -> Self {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE alerts (id TEXT PRIMARY KEY, body TEXT, triage TEXT, is_blind INTEGER NOT NULL DEFAULT 0) STRICT;
                 CREATE TABLE closings (alert_id TEXT, analyst TEXT) STRICT;",
            )
            .unwrap();
        connection.execute_batch(TABLE).unwrap();
        connection.execute_batch(RECEIPT).unwrap();
        Self(connection)
    }

    fn tx<T>(&mut self, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> T {
        with(&mut self.0, work)
    }

    fn alert(&mut self, id: &str, level: u8, webhooks: &[&str], triage: &str, at: i64, hold_until: i64) {
        let webhooks: Vec<String> = webhooks.iter().map(|name| (*name).to_owned()).collect();
        self.tx(|tx| {
            tx.execute("INSERT INTO alerts (id, body, triage) VALUES (?1, ?1, ?2)", [id, triage])?;
            create(tx, id, level, &webhooks, at, hold_until)
        });
    }

    fn settle(&mut self, id: &str, at: i64) {
        self.tx(|tx| {
            tx.execute("UPDATE alerts SET triage = ?2 WHERE id = ?1", [id, DONE])?;
            on_triage_settled(tx, id, at)
        });
    }

    fn claim(&mut self, webhook: &str, free: usize, now: i64) -> Vec<Claim> {
        let slots = [Slots { webhook: webhook.into(), free }];
        self.tx(|tx| claim_due(tx, &slots, now))
    }

    fn end(&mut self, claim: &Claim, outcome: Outcome) {
        let ended = Ended { outcome, status: Some(503), answer: "busy".into(), receipt: None };
        self.tx(|tx| finish(tx, claim.id, &ended, 0));
    }

    fn told(&self, claim: &Claim) -> String {
        content(&self.0, claim.id).unwrap().triage
    }

    fn next(&self, webhook: &str, now: i64) -> Option<i64> {
        next_due(&self.0, &[Slots { webhook: webhook.into(), free: 1 }], now).unwrap()
    }
}

fn ids(claims: &[Claim]) -> Vec<&str> {
    claims.iter().map(|claim| claim.alert_id.as_str()).collect()
}

#[test]
fn the_highest_level_goes_first_and_then_the_oldest() {
    let mut outbox = Fixture::new();
    for (id, level, at) in [("low", 10, 1), ("new", 90, 3), ("old", 90, 2), ("later", 99, 50)] {
        outbox.alert(id, level, &["a"], DONE, at, at);
    }
    assert_eq!(ids(&outbox.claim("a", 2, 10)), ["old", "new"]);
    assert_eq!(ids(&outbox.claim("a", 2, 10)), ["low"]);
    assert_eq!(outbox.next("a", 10), Some(50));
    assert_eq!(ids(&outbox.claim("b", 2, 10)), [""; 0]);
}

#[test]
fn every_attempt_has_the_same_key_and_says_the_same() {
    let mut outbox = Fixture::new();
    outbox.alert("x", 50, &["a"], PENDING, 0, 0);
    let first = outbox.claim("a", 9, 0).remove(0);
    assert_eq!(outbox.told(&first), PENDING);
    outbox.end(&first, Outcome::Again { at: 10 });
    outbox.settle("x", 5);
    assert_eq!(outbox.claim("a", 9, 9), []);
    let second = outbox.claim("a", 9, 10).remove(0);
    assert_eq!((second.id, &second.idempotency_key), (first.id, &first.idempotency_key));
    assert_eq!((second.attempts, second.first_attempt_at, outbox.told(&second).as_str()), (2, 0, PENDING));
    assert_eq!(first.idempotency_key, idempotency_key("x", "a", Kind::Alert));
}

#[test]
fn keys_differ_by_alert_webhook_and_kind() {
    let key = idempotency_key("x", "a", Kind::Alert);
    assert_eq!(key.len(), 32);
    for other in
        [("y", "a", Kind::Alert), ("x", "b", Kind::Alert), ("x", "a", Kind::Update), ("xa", "", Kind::Alert)]
    {
        assert_ne!(key, idempotency_key(other.0, other.1, other.2));
    }
}

#[test]
fn the_first_attempt_waits_for_the_verdict_and_carries_it() {
    let mut outbox = Fixture::new();
    outbox.alert("x", 50, &["a"], PENDING, 0, 30_000);
    assert_eq!(outbox.claim("a", 9, 29_999), []);
    assert_eq!(outbox.next("a", 0), Some(30_000));
    outbox.settle("x", 4_000);
    let claim = outbox.claim("a", 9, 4_000).remove(0);
    assert_eq!(outbox.told(&claim), DONE);
    outbox.end(&claim, Outcome::Done);
    assert_eq!(outbox.claim("a", 9, i64::MAX), [], "nobody was told `pending`, so there is no update");
}

#[test]
fn who_was_told_pending_gets_one_update_and_never_before_the_first_message() {
    let mut outbox = Fixture::new();
    outbox.alert("x", 50, &["a", "b"], PENDING, 0, 10);
    let first = outbox.claim("a", 9, 10).remove(0);
    outbox.settle("x", 20);
    outbox.settle("x", 21);
    assert_eq!(outbox.claim("a", 9, 30), [], "the first message is being sent");
    outbox.end(&first, Outcome::Again { at: 100 });
    assert_eq!(outbox.claim("a", 9, 30), [], "the first message will be sent again");
    let again = outbox.claim("a", 9, 100);
    assert_eq!(again.iter().map(|claim| claim.kind).collect::<Vec<_>>(), [Kind::Alert]);
    outbox.end(&again[0], Outcome::Done);
    let update = outbox.claim("a", 9, 100);
    assert_eq!(update.iter().map(|claim| claim.kind).collect::<Vec<_>>(), [Kind::Update]);
    assert_eq!(outbox.told(&update[0]), DONE);
    outbox.end(&update[0], Outcome::Done);
    outbox.settle("x", 200);
    assert_eq!(outbox.claim("a", 9, 300), [], "one update, not two");
    let other = outbox.claim("b", 9, 300);
    assert_eq!((other.len(), other[0].kind, outbox.told(&other[0]).as_str()), (1, Kind::Alert, DONE));
}

#[test]
fn who_was_told_the_verdict_without_the_prose_gets_one_update() {
    let mut outbox = Fixture::new();
    outbox.alert("x", 50, &["a", "b"], JUDGED, 0, 30_000);
    assert_eq!(outbox.claim("a", 9, 10), [], "it waits for the prose");
    outbox.tx(|tx| on_judged(tx, "x", 10));
    let first = outbox.claim("a", 9, 10).remove(0);
    assert_eq!(outbox.told(&first), JUDGED);
    outbox.end(&first, Outcome::Done);
    outbox.settle("x", 20);
    let update = outbox.claim("a", 9, 20);
    assert_eq!((update.len(), update[0].kind, outbox.told(&update[0]).as_str()), (1, Kind::Update, DONE));
    assert_eq!(outbox.claim("b", 9, 20)[0].kind, Kind::Alert, "who was told nothing yet is told all at once");
}

#[test]
fn an_update_follows_a_dead_first_message() {
    let mut outbox = Fixture::new();
    outbox.alert("x", 50, &["a"], PENDING, 0, 0);
    let first = outbox.claim("a", 9, 0).remove(0);
    outbox.end(&first, Outcome::Dead);
    outbox.settle("x", 1);
    assert_eq!(outbox.claim("a", 9, 1)[0].kind, Kind::Update);
}

#[test]
fn what_a_crash_interrupted_is_due_again_with_its_key() {
    let mut outbox = Fixture::new();
    outbox.alert("x", 50, &["a"], DONE, 0, 0);
    let before = outbox.claim("a", 9, 0).remove(0);
    assert_eq!(outbox.claim("a", 9, 1_000), []);
    assert_eq!(outbox.tx(|tx| recover(tx, 2_000)), 1);
    let after = outbox.claim("a", 9, 2_000).remove(0);
    assert_eq!((after.id, after.attempts), (before.id, 2));
    assert_eq!(after.idempotency_key, before.idempotency_key);
}

#[test]
fn dead_letters_are_listed_and_can_be_sent_again_with_their_key() {
    let mut outbox = Fixture::new();
    for id in ["x", "y", "z"] {
        outbox.alert(id, 50, &["a"], DONE, 0, 0);
    }
    let claims = outbox.claim("a", 9, 0);
    outbox.end(&claims[0], Outcome::Dead);
    outbox.end(&claims[1], Outcome::Dead);
    outbox.end(&claims[2], Outcome::Done);
    assert_eq!(backlog(&outbox.0).unwrap(), (0, 2));
    let dead = list(&outbox.0, true, 10).unwrap();
    assert_eq!(dead.iter().map(|row| row.alert_id.as_str()).collect::<Vec<_>>(), ["y", "x"]);
    assert_eq!((dead[0].last_status, dead[0].last_answer.as_deref()), (Some(503), Some("busy")));
    assert_eq!(list(&outbox.0, false, 2).unwrap().len(), 2);

    assert_eq!(
        outbox.tx(|tx| retry(tx, Which::One(claims[2].id), 5)),
        0,
        "what was delivered stays delivered"
    );
    assert_eq!(outbox.tx(|tx| retry(tx, Which::One(claims[0].id), 5)), 1);
    let again = outbox.claim("a", 9, 5).remove(0);
    assert_eq!((&again.idempotency_key, again.attempts), (&claims[0].idempotency_key, 1));
    assert_eq!(again.first_attempt_at, 5, "it has another day");
    assert_eq!(outbox.tx(|tx| retry(tx, Which::AllDead, 6)), 1);
    assert_eq!(backlog(&outbox.0).unwrap(), (2, 0));
}

#[test]
fn deliveries_to_a_webhook_that_is_gone_are_seen_among_the_dead() {
    let mut outbox = Fixture::new();
    outbox.alert("x", 50, &["a", "gone"], DONE, 0, 0);
    assert_eq!(outbox.tx(|tx| bury_unknown(tx, &["a".into()])), 1);
    let dead = list(&outbox.0, true, 10).unwrap();
    assert_eq!((dead.len(), dead[0].webhook.as_str()), (1, "gone"));
    assert_eq!(ids(&outbox.claim("a", 9, 0)), ["x"]);
}

#[test]
fn the_same_alert_makes_its_deliveries_once() {
    let mut outbox = Fixture::new();
    outbox.alert("x", 50, &["a"], DONE, 0, 0);
    outbox.tx(|tx| create(tx, "x", 50, &["a".into()], 1, 1));
    assert_eq!(list(&outbox.0, false, 10).unwrap().len(), 1);
}
