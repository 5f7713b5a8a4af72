//! A node in figures.

use larder_protocol::native::{NativeRequest, StatisticsReply};

use crate::connection::{Arrived, ClientConnection};
use crate::error::ClientError;

impl ClientConnection {
    /// The node's figures over all its cores, by name. They are answered behind what was sent
    /// before on this connection.
    ///
    /// # Errors
    /// Any.
    pub fn statistics(&mut self) -> Result<Vec<(String, String)>, ClientError> {
        let figures = self.call(&NativeRequest::Statistics)?.figures();
        self.judge(figures)
    }
}

impl Arrived {
    /// A node's figures.
    pub(crate) fn figures(self) -> Result<Vec<(String, String)>, ClientError> {
        let reply = StatisticsReply::decode(&self.ok(&[])?.body);
        reply.map(|reply| reply.values).map_err(|error| ClientError::Foreign(error.to_string()))
    }
}
