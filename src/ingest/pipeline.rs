//! Three steps that overlap: while one batch is finished the next is in the middle, and the one after that
//! begins.

use crate::error::{Error, Result};
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::thread::{Builder, ScopedJoinHandle};

/// Runs batches through three steps, each in order, the last on the calling thread; ends with the first error,
/// after what came before it went through.
///
/// At most one batch waits between two steps, so five are under way. A panic of any step is the caller's.
pub(super) fn run<A: Send, B: Send>(
    mut first: impl FnMut() -> Result<Option<A>> + Send,
    mut second: impl FnMut(A) -> Result<B> + Send,
    mut third: impl FnMut(B) -> Result<()>,
) -> Result<()> {
    let (begun, to_second) = sync_channel::<Result<A>>(1);
    let (halfway, to_third) = sync_channel::<Result<B>>(1);
    std::thread::scope(|scope| {
        // A step whose successor has gone stops: the reason is known there.
        let begin = start("apcm-read", |builder| {
            builder.spawn_scoped(scope, move || {
                while let Some(batch) = first().transpose() {
                    let ended = batch.is_err();
                    if begun.send(batch).is_err() || ended {
                        break;
                    }
                }
            })
        })?;
        let go_on = start("apcm-encode", |builder| {
            builder.spawn_scoped(scope, move || {
                for batch in to_second {
                    let batch = batch.and_then(&mut second);
                    let ended = batch.is_err();
                    if halfway.send(batch).is_err() || ended {
                        break;
                    }
                }
            })
        })?;
        let ended = to_third.into_iter().try_for_each(|batch| third(batch?));
        for step in [begin, go_on] {
            if let Err(panic) = step.join() {
                std::panic::resume_unwind(panic);
            }
        }
        ended
    })
}

fn start<'scope>(
    name: &str,
    spawn: impl FnOnce(Builder) -> std::io::Result<ScopedJoinHandle<'scope, ()>>,
) -> Result<ScopedJoinHandle<'scope, ()>> {
    spawn(Builder::new().name(name.to_owned())).map_err(Error::io(Path::new("a thread of the ingest")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(most: u32) -> impl FnMut() -> Result<Option<u32>> {
        let mut next = 0;
        move || {
            next += 1;
            Ok((next <= most).then_some(next))
        }
    }

    #[test]
    fn everything_goes_through_in_order() {
        let mut seen = Vec::new();
        let third = |number| {
            seen.push(number);
            Ok(())
        };
        run(numbers(100), |number| Ok(number * 2), third).unwrap();
        assert_eq!(seen, (1..=100).map(|number| number * 2).collect::<Vec<_>>());
    }

    #[test]
    fn what_came_before_an_error_goes_through_and_nothing_after_it() {
        let fail = |at: u32| move |number: u32| if number == at { Err(Error::Cancelled) } else { Ok(number) };
        for step in 0..3 {
            let mut seen = Vec::new();
            let mut source = numbers(50);
            let first = move || match source()? {
                Some(7) if step == 0 => Err(Error::Cancelled),
                other => Ok(other),
            };
            let third = |number| {
                fail(if step == 2 { 7 } else { 0 })(number)?;
                seen.push(number);
                Ok(())
            };
            let ended = run(first, fail(if step == 1 { 7 } else { 0 }), third);
            assert!(matches!(ended, Err(Error::Cancelled)), "{step}");
            assert_eq!(seen, [1, 2, 3, 4, 5, 6], "{step}");
        }
    }

    #[test]
    fn a_panic_is_the_callers() {
        for step in 0..3 {
            let ended = std::panic::catch_unwind(|| {
                let mut source = numbers(50);
                let first = move || {
                    let next = source();
                    assert!(step != 0 || !matches!(next, Ok(Some(5))), "here");
                    next
                };
                let second = |number| {
                    assert!(step != 1 || number != 5, "here");
                    Ok(number)
                };
                let third = |number| {
                    assert!(step != 2 || number != 5, "here");
                    Ok(())
                };
                run(first, second, third)
            });
            assert!(ended.is_err(), "{step}");
        }
    }
}
