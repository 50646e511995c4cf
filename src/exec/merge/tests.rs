//! Merges of made-up rows against sorting them.

use proptest::prelude::*;

use super::*;
use crate::plan::merge::SortKey;
use crate::wire::backend::{Column, data_row, row_description};
use crate::wire::frame::body;

fn plan(keys: &[(bool, bool)]) -> Arc<Merge> {
    let key = |(index, (descending, nulls_first)): (usize, &(bool, bool))| {
        SortKey::new(1 + index, (*descending, *nulls_first), true, "k")
    };
    let order = keys.iter().enumerate().map(key).collect();
    Arc::new(Merge::of_order(1, keys.len(), order))
}

fn bounds(skip: u64, take: u64) -> Bounds {
    Bounds {
        window: Window { skip, take },
        memory_bytes: 1 << 20,
        is_utf8: true,
    }
}

fn description(keys: usize) -> Vec<u8> {
    let binary = Column {
        is_binary: true,
        ..Column::int8("k")
    };
    let mut columns = vec![Column::text("shown")];
    columns.extend(std::iter::repeat_n(binary, keys));
    let mut out = Vec::new();
    row_description(&mut out, &columns);
    out
}

fn frame_of(row: &[Option<i64>]) -> Vec<u8> {
    let shown = format!("{row:?}").into_bytes();
    let keys: Vec<_> = row.iter().map(|key| key.map(i64::to_be_bytes)).collect();
    let keys = keys.iter().map(|key| key.as_ref().map(|key| &key[..]));
    let values: Vec<_> = std::iter::once(Some(&shown[..])).chain(keys).collect();
    let mut out = Vec::new();
    data_row(&mut out, values.into_iter());
    out
}

/// The shown column of each row that passes.
fn merged(mut merger: Merger, shards: &[Vec<Vec<u8>>]) -> Vec<String> {
    let mut at = vec![0; shards.len()];
    let mut out = Vec::new();
    loop {
        for (branch, rows) in shards.iter().enumerate() {
            if merger.holds(branch) {
                continue;
            }
            match rows.get(at[branch]) {
                Some(row) => merger.offer(branch, row).unwrap(),
                None => merger.end(branch),
            }
        }
        let Some(branch) = merger.next() else { break };
        merger.take(&shards[branch][at[branch]], &mut out);
        at[branch] += 1;
    }
    let mut shown = Vec::new();
    let mut rest = &out[..];
    while let Ok(Some(header)) = frame::header(rest) {
        let (frame, behind) = rest.split_at(header.frame_bytes);
        row::walk(body(frame), 1, |_, value, _| {
            shown.push(String::from_utf8(value.unwrap().to_vec()).unwrap());
            Ok(())
        })
        .unwrap();
        rest = behind;
    }
    shown
}

fn order_of(a: Option<i64>, b: Option<i64>, (descending, nulls_first): (bool, bool)) -> Ordering {
    let nulls = match (a.is_none(), b.is_none()) {
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        _ => Ordering::Equal,
    };
    let nulls = if nulls_first { nulls } else { nulls.reverse() };
    let values = if descending { b.cmp(&a) } else { a.cmp(&b) };
    nulls.then(values)
}

#[test]
fn types_that_do_not_compare_are_refused() {
    let mut merger = Merger::new(plan(&[(false, false)]), bounds(0, 9), 2);
    let columns = [
        Column::text("shown"),
        Column {
            type_oid: 3802,
            is_binary: true,
            ..Column::int8("k")
        },
    ];
    let mut frame = Vec::new();
    row_description(&mut frame, &columns);
    assert!(merger.describe(&frame).is_err());
    let mut merger = Merger::new(plan(&[(false, false)]), bounds(0, 9), 2);
    assert!(merger.describe(&description(2)).is_err());
    let mut strings = Vec::new();
    let text = Column {
        is_binary: true,
        ..Column::text("k")
    };
    row_description(&mut strings, &[Column::text("shown"), text]);
    let foreign = Bounds {
        is_utf8: false,
        ..bounds(0, 9)
    };
    assert!(
        Merger::new(plan(&[(false, false)]), foreign, 2)
            .describe(&strings)
            .is_err()
    );
    assert!(
        Merger::new(plan(&[(false, false)]), bounds(0, 9), 2)
            .describe(&strings)
            .is_ok()
    );
}

#[test]
fn rows_without_order_pass_until_there_are_enough() {
    let rows = |numbers: &[i64]| {
        numbers
            .iter()
            .map(|number| frame_of(&[Some(*number)]))
            .collect()
    };
    let shards: Vec<Vec<Vec<u8>>> = vec![rows(&[1, 2, 3]), rows(&[4, 5, 6])];
    let unordered = Arc::new(Merge::of_order(1, 1, Vec::new()));
    for (skip, take, expected) in [(0, 4, 4), (4, 9, 2), (7, 1, 0), (0, 0, 0)] {
        let merger = Merger::new(Arc::clone(&unordered), bounds(skip, take), 2);
        assert_eq!(merged(merger, &shards).len(), expected);
    }
}

proptest! {
    #[test]
    fn a_merge_is_a_sort(
        rows in prop::collection::vec((0usize..4, prop::option::of(-2i64..3), prop::option::of(-2i64..3)), 0..40),
        first: (bool, bool), second: (bool, bool), skip in 0u64..5, take in 0u64..30,
    ) {
        let compare = |a: &[Option<i64>; 2], b: &[Option<i64>; 2]| {
            order_of(a[0], b[0], first).then(order_of(a[1], b[1], second))
        };
        let mut all = Vec::new();
        let mut shards = vec![Vec::new(); 4];
        for (shard, a, b) in rows {
            all.push([a, b]);
            shards[shard].push([a, b]);
        }
        all.sort_by(compare);
        let frames: Vec<Vec<Vec<u8>>> = shards.iter_mut().map(|shard| {
            shard.sort_by(compare);
            shard.iter().map(|row| frame_of(row)).collect()
        }).collect();
        let mut merger = Merger::new(plan(&[first, second]), bounds(skip, take), 4);
        merger.describe(&description(2)).unwrap();
        let expected: Vec<String> = all.iter()
            .skip(skip as usize)
            .take(take as usize)
            .map(|row| format!("{row:?}"))
            .collect();
        prop_assert_eq!(merged(merger, &frames), expected);
    }
}
