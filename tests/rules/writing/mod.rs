//! What is sent: the queue, its marks and its cap, and what is produced on demand.

mod queue;
mod marks;
mod producers;
