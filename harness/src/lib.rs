//! x

pub mod listener;
pub mod mock_llm;
