//! Killed at every system call of ADD, DEL and GC.

use serde_json::Value;

use crate::is_private;
use crate::scenario::{Node, Scenario, WHOLE};
use crate::state::State;
use crate::tracer::{Ended, Fate};

/// How many nodes share the calls of a verb. Most of the time goes by waiting for grace periods of the kernel.
const NODES: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Add,
    Del,
    Gc,
}

macro_rules! killed_at_every_system_call {
    ($($name:ident: $verb:ident of $scenario:ident,)*) => {
        $(#[test] fn $name() { killed_at_every_call(Verb::$verb, Scenario::$scenario); })*
    };
}

killed_at_every_system_call! {
    a_killed_add_of_a_routed_pod_is_cleaned_up: Add of Routed,
    a_killed_del_of_a_routed_pod_is_cleaned_up: Del of Routed,
    a_killed_gc_of_a_routed_pod_is_cleaned_up: Gc of Routed,
    a_killed_add_of_a_pod_on_a_bridge_is_cleaned_up: Add of Bridged,
    a_killed_del_of_a_pod_on_a_bridge_is_cleaned_up: Del of Bridged,
    a_killed_gc_of_a_pod_on_a_bridge_is_cleaned_up: Gc of Bridged,
    a_killed_add_behind_another_plugin_is_cleaned_up: Add of Chained,
    a_killed_del_behind_another_plugin_is_cleaned_up: Del of Chained,
    a_killed_gc_behind_another_plugin_is_cleaned_up: Gc of Chained,
    a_killed_add_with_addresses_of_another_plugin_is_cleaned_up: Add of Delegated,
    a_killed_del_with_addresses_of_another_plugin_is_cleaned_up: Del of Delegated,
    a_killed_gc_with_addresses_of_another_plugin_is_cleaned_up: Gc of Delegated,
}

fn killed_at_every_call(verb: Verb, scenario: Scenario) {
    // A bridge stays for good, once there was a pod on it.
    let has_neighbour = scenario == Scenario::Bridged;
    let killed = |first| move |node: &Node| killed_at_each(node, verb, (first..).step_by(NODES));
    let share = |first| Node::run(scenario, has_neighbour, killed(first));
    let shares: Vec<_> = (1..=NODES).map(share).collect();
    let calls = shares.into_iter().map(|share| share.join().unwrap()).max().unwrap_or_default();
    assert!(calls > 20, "only {calls} system calls: what is traced here?");
}

/// Kills `verb` at each call of `nths` until there is no such call any more, and returns the last.
fn killed_at_each(node: &Node, verb: Verb, nths: impl Iterator<Item = usize>) -> usize {
    let (all, before) = (State::of(node), State::at_a_glance(node));
    let mut last = 0;
    for nth in nths {
        node.begin();
        let (ended, result) = cut_off(node, verb, nth);
        let whole = ended.code.is_some();
        if whole {
            ended.answer().unwrap();
        }
        recover(node, nth, result.as_ref());
        node.end();
        let difference = before.diff(&State::at_a_glance(node));
        assert_eq!(
            difference,
            [""; 0],
            "{verb:?} was killed at {nth}, and then came {:?}",
            Recovery::of(nth)
        );
        if whole {
            break;
        }
        last = nth;
    }
    assert_eq!(all.diff(&State::of(node)), [""; 0], "{verb:?} was killed at all of its calls, one by one");
    last
}

/// Runs `verb` up to its `nth` call. What ADD answered before it, where it came to that.
fn cut_off(node: &Node, verb: Verb, nth: usize) -> (Ended, Option<Value>) {
    let mut calls = 0;
    let mut fate = |call| {
        calls += usize::from(!is_private(call));
        if calls == nth && !is_private(call) { Fate::Kills } else { Fate::Happens }
    };
    if verb == Verb::Add {
        let ended = node.add(Some(&mut fate));
        return (ended, None);
    }
    let result = node.add(WHOLE).answer().unwrap();
    let ended =
        if verb == Verb::Del { node.del(Some(&result), Some(&mut fate)) } else { node.gc(Some(&mut fate)) };
    (ended, Some(result))
}

/// What the runtime does next.
#[derive(Clone, Copy, Debug)]
enum Recovery {
    /// DEL, as all do.
    Del,
    /// GC, which knows nothing of the pod.
    Gc,
    /// ADD, as if nothing had been, and then DEL.
    Add,
}

impl Recovery {
    fn of(nth: usize) -> Self {
        // The share of a node leaves out none of the three.
        [Self::Del, Self::Gc, Self::Add][nth % 3]
    }
}

fn recover(node: &Node, nth: usize, result: Option<&Value>) {
    match Recovery::of(nth) {
        Recovery::Del => drop(node.del(result, WHOLE).answer().unwrap()),
        Recovery::Gc => drop(node.gc(WHOLE).answer().unwrap()),
        Recovery::Add => {
            // It may be refused, but then in words: the attachment may stand.
            if let Ok(result) = node.add(WHOLE).answer() {
                node.check(&result).answer().unwrap();
            }
            node.del(None, WHOLE).answer().unwrap();
        }
    }
}
