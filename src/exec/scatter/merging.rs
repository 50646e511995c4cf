//! A scatter whose rows are merged: between the connections' buffers and the merge.

use std::borrow::BorrowMut;

use crate::net::buffer::Buffer;
use crate::pool::Lease;
use crate::wire::frame;

use super::{Failure, Scatter};

impl<C: BorrowMut<Lease>> Scatter<C> {
    /// Shows the merge the row at the front of a branch; false if it has to wait.
    pub(super) fn hold(&mut self, index: usize, frame_bytes: usize) -> Result<bool, Failure> {
        let (Some(branch), Some(merger)) = (self.branches.get_mut(index), &mut self.merger) else {
            return Ok(false);
        };
        if !self.is_released || merger.holds(index) {
            return Ok(false);
        }
        if merger.is_full() || self.failure.is_some() {
            branch.dropping = frame_bytes;
            return Ok(true);
        }
        merger.check_size(frame_bytes).map_err(Failure::Own)?;
        if merger.gathers() {
            let Some(row) = branch.socket().input.bytes().get(..frame_bytes) else {
                return Ok(false);
            };
            merger.gather(row).map_err(Failure::Own)?;
            branch.dropping = frame_bytes;
            return Ok(true);
        }
        match branch.socket().input.bytes().get(..frame_bytes) {
            None => Ok(false),
            Some(row) => {
                merger.offer(index, row).map_err(Failure::Own)?;
                Ok(true)
            }
        }
    }

    /// Passes what has been gathered, once every shard has ended; whether that was all.
    pub(super) fn drain(&mut self, out: &mut Buffer) -> Result<bool, Failure> {
        match &mut self.merger {
            Some(merger) if merger.gathers() && self.failure.is_none() => {
                let drained = merger.drain(out.tail(), self.high_water_bytes);
                drained.map_err(Failure::Own)
            }
            _ => Ok(true),
        }
    }

    /// Passes the rows that are next, as long as it is known which those are.
    pub(super) fn emit(&mut self, out: &mut Buffer) -> Result<(), Failure> {
        while out.len() < self.high_water_bytes && self.failure.is_none() {
            let Some(merger) = &mut self.merger else {
                break;
            };
            let Some(index) = merger.next() else { break };
            let Some(branch) = self.branches.get_mut(index) else {
                break;
            };
            let input = &mut branch.connection.borrow_mut().socket.input;
            let header = frame::header(input.bytes()).map_err(Failure::Own)?;
            let frame_bytes = header.map_or(0, |header| header.frame_bytes);
            let row = input.bytes().get(..frame_bytes).unwrap_or(&[]);
            merger.take(row, out.tail());
            input.consume(frame_bytes);
            // The next row of the branch, if it is there.
            let next = frame::header(input.bytes()).map_err(Failure::Own)?;
            if let Some(next) = next.filter(|next| next.tag == b'D')
                && self.hold(index, next.frame_bytes)?
                && let Some(branch) = self.branches.get_mut(index)
            {
                branch.bytes += next.frame_bytes as u64;
            }
        }
        Ok(())
    }
}
