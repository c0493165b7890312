//! A full spool gives up what matters least first, and another epoch loses nothing; both also when killed on the way.

use std::io;
use std::sync::{Arc, Mutex};

use peil_proto::ids::Seq;

use super::super::room::{Digest, Thin};
use super::super::{Beginning, Limits, Spool};
use super::fake_disk::FakeDisk;
use super::{MACHINE, SMALL, payload, read_all};

/// Folds away all but every 4th payload, then all but every 16th; what goes is written down.
#[derive(Clone, Default)]
struct Sieve(Arc<Mutex<Vec<u64>>>);

fn number(payload: &[u8]) -> u64 {
    u64::from_le_bytes(*payload.first_chunk().unwrap())
}

impl Digest for Sieve {
    fn thin(&mut self, records: &[Vec<u8>], how: Thin) -> io::Result<Vec<Vec<u8>>> {
        let every = if how == Thin::Fold { 4 } else { 16 };
        let (mut kept, mut gone): (Vec<_>, Vec<_>) =
            records.iter().cloned().partition(|record| number(record).is_multiple_of(every));
        if kept.is_empty() {
            kept.extend(gone.pop());
        }
        if how == Thin::TroubleOnly {
            self.forget(&gone)?;
        }
        Ok(kept)
    }

    fn forget(&mut self, records: &[Vec<u8>]) -> io::Result<()> {
        self.0.lock().unwrap().extend(records.iter().map(|record| number(record)));
        Ok(())
    }

    fn is_past(&self, record: &[u8]) -> bool {
        number(record) <= 30
    }
}

fn spool(disk: &FakeDisk, sieve: &Sieve) -> Spool {
    let (mut spool, recovery) = Spool::open_on(Box::new(disk.clone()), MACHINE, SMALL).unwrap();
    assert_eq!(recovery.trouble, Vec::<String>::new());
    spool.thin_with(Box::new(sieve.clone()));
    spool.collector_has(spool.acked());
    spool
}

fn numbers(spool: &mut Spool) -> Vec<u64> {
    read_all(spool).iter().map(|(_, payload)| number(payload)).collect()
}

fn append(spool: &mut Spool, n: u64) -> io::Result<Seq> {
    spool.append(&payload(n)).map_err(io::Error::other)?;
    spool.sync()
}

#[test]
fn a_full_spool_folds_routine_first_and_keeps_what_matters_longest() {
    let (disk, sieve) = (FakeDisk::default(), Sieve::default());
    let mut spool = spool(&disk, &sieve);
    for n in 1..=40 {
        append(&mut spool, n).unwrap();
        assert!(spool.bytes() <= SMALL.bytes_max);
    }
    assert_eq!(*sieve.0.lock().unwrap(), [0_u64; 0], "folding is enough so far");
    let held = numbers(&mut spool);
    assert!((1..=40).filter(|n| n % 4 == 0).all(|n| held.contains(&n)), "{held:?}");
    for n in 41..=400 {
        append(&mut spool, n).unwrap();
        assert!(spool.bytes() <= SMALL.bytes_max);
    }
    let held = numbers(&mut spool);
    assert!(held.windows(2).all(|pair| pair[0] < pair[1]), "order stays: {held:?}");
    let oldest = held[0];
    assert!((oldest..=400).filter(|n| n % 16 == 0).all(|n| held.contains(&n)), "{held:?}");
    let gone = sieve.0.lock().unwrap().clone();
    assert!((1..oldest).filter(|n| n % 4 == 0).all(|n| gone.contains(&n)), "what went is written down");
    assert_eq!(spool.take_dropped(), [], "nothing is told twice");
    let before = read_all(&mut spool);
    drop(spool);
    let (mut again, recovery) = Spool::open_on(Box::new(disk), MACHINE, SMALL).unwrap();
    assert_eq!((recovery.lost, recovery.damaged_bytes), (vec![], 0), "numbers left out are no loss");
    assert_eq!(read_all(&mut again), before);
}

#[test]
fn what_the_collector_may_have_keeps_its_numbers() {
    let (disk, sieve, limits) = (FakeDisk::default(), Sieve::default(), Limits { bytes_max: 6_000, ..SMALL });
    let (mut spool, _) = Spool::open_on(Box::new(disk.clone()), MACHINE, limits).unwrap();
    spool.thin_with(Box::new(sieve.clone()));
    for n in 1..=20 {
        append(&mut spool, n).unwrap();
    }
    let sent = spool.read_after(Seq(0), 12, usize::MAX).unwrap();
    assert_eq!(spool.maybe_sent(), Seq(12));
    for n in 21..=80 {
        append(&mut spool, n).unwrap();
    }
    assert!(numbers(&mut spool).len() < 80, "the others were folded");
    assert_eq!(spool.read_after(Seq(0), 12, usize::MAX).unwrap(), sent);
    // A spool that was opened again cannot know what had been sent, until the collector has told.
    drop(spool);
    let (mut again, _) = Spool::open_on(Box::new(disk), MACHINE, limits).unwrap();
    again.thin_with(Box::new(sieve));
    assert_eq!(again.maybe_sent(), again.durable());
    again.collector_has(Seq(0));
    assert_eq!(again.maybe_sent(), Seq(0));
}

#[test]
fn records_that_are_too_old_go_and_are_written_down() {
    let (disk, sieve) = (FakeDisk::default(), Sieve::default());
    let mut spool = spool(&disk, &sieve);
    for n in 1..=20 {
        append(&mut spool, n).unwrap();
    }
    spool.expire().unwrap();
    let held = numbers(&mut spool);
    assert!(!held.is_empty(), "the newest segment stays");
    let gone = sieve.0.lock().unwrap().clone();
    assert!(!gone.is_empty());
    assert_eq!([gone, held].concat(), (1..=20).collect::<Vec<_>>());
}

#[test]
fn f10_a_power_cut_while_room_is_made_loses_nothing_untold_and_doubles_nothing() {
    for seed in 0..40 {
        for spared in (0..260).step_by(3) {
            let (disk, sieve) = (FakeDisk::default(), Sieve::default());
            let mut running = spool(&disk, &sieve);
            disk.die_after(spared);
            let mut durable = 0;
            for n in 1..=90 {
                if append(&mut running, n).is_err() {
                    break;
                }
                durable = n;
            }
            drop(running);
            disk.crash(seed);
            let (mut again, recovery) = Spool::open_on(Box::new(disk.clone()), MACHINE, SMALL).unwrap();
            assert_eq!(recovery.trouble, Vec::<String>::new());
            let held = numbers(&mut again);
            assert!(held.windows(2).all(|pair| pair[0] < pair[1]), "{seed}/{spared}: doubled in {held:?}");
            let gone = sieve.0.lock().unwrap().clone();
            let missing = (1..=durable).find(|n| n % 4 == 0 && !held.contains(n) && !gone.contains(n));
            assert_eq!(missing, None, "{seed}/{spared}: {held:?}");
        }
    }
}

#[test]
fn f29_a_new_epoch_takes_every_unreleased_record_along_also_when_the_power_goes() {
    for seed in 0..20 {
        let mut finished = false;
        for spared in 0..200 {
            let disk = FakeDisk::default();
            let (mut running, _) = Spool::open_on(Box::new(disk.clone()), MACHINE, SMALL).unwrap();
            for n in 1..=18 {
                append(&mut running, n).unwrap();
            }
            running.release(Seq(5)).unwrap();
            let old = running.epoch();
            disk.die_after(spared);
            finished = running.renew_epoch().is_ok();
            if finished {
                assert_ne!(running.epoch(), old);
                assert_eq!(numbers(&mut running), (6..=18).collect::<Vec<_>>());
                assert_eq!((running.acked(), running.durable(), running.maybe_sent()), (Seq(0), Seq(13), Seq(13)));
            }
            drop(running);
            disk.crash(seed);
            let (mut again, recovery) = Spool::open_on(Box::new(disk), MACHINE, SMALL).unwrap();
            assert_eq!((recovery.beginning, recovery.lost), (Beginning::Continued, vec![]), "{seed}/{spared}");
            assert_eq!(numbers(&mut again), (6..=18).collect::<Vec<_>>(), "{seed}/{spared}");
            assert_eq!(append(&mut again, 19).unwrap().0, if again.epoch() == old { 19 } else { 14 });
            if finished {
                break;
            }
        }
        assert!(finished, "the story ends");
    }
}
