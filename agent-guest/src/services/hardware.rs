//! `vbridge.guest.v1.Hardware`: CPUs and blocks of memory that come and go.
//!
//! The kernel may take seconds to empty a block of memory, so its switches are turned on threads where that may be.

use tonic::{Request, Response, Status};
use vbridge_api::guest::v1::{
    HardwareListCpusRequest, HardwareListCpusResponse, HardwareListMemoryBlocksRequest,
    HardwareListMemoryBlocksResponse, HardwareSetCpusRequest, HardwareSetCpusResponse,
    HardwareSetMemoryBlocksRequest, HardwareSetMemoryBlocksResponse, MemoryBlockResult,
    hardware_server,
};

use super::aside;
use crate::{
    error::{self, Reason},
    limits::{MAX_CPUS, MAX_MEMORY_BLOCKS},
    source::hardware::{Hardware as Source, SwitchError},
};

/// The service.
#[derive(Debug)]
pub(crate) struct Hardware {
    source: Source,
}

impl Hardware {
    pub(crate) fn new(source: Source) -> Self {
        Self { source }
    }
}

#[tonic::async_trait]
impl hardware_server::Hardware for Hardware {
    async fn list_cpus(
        &self,
        _: Request<HardwareListCpusRequest>,
    ) -> Result<Response<HardwareListCpusResponse>, Status> {
        let source = self.source.clone();
        let cpus = aside(move || source.cpus()).await?;
        Ok(Response::new(HardwareListCpusResponse { cpus }))
    }

    async fn set_cpus(
        &self,
        request: Request<HardwareSetCpusRequest>,
    ) -> Result<Response<HardwareSetCpusResponse>, Status> {
        let wanted = request.into_inner().cpus;
        error::at_most("cpus", wanted.len(), MAX_CPUS)?;
        let source = self.source.clone();
        let switched = aside(move || {
            for (done, cpu) in wanted.iter().enumerate() {
                if let Err(error) = source.set_cpu(cpu.id, cpu.online) {
                    return Err((error, done));
                }
            }
            Ok(source.cpus())
        });
        match switched.await? {
            Ok(cpus) => Ok(Response::new(HardwareSetCpusResponse { cpus })),
            Err((error, done)) => {
                let message = format!("{error}; {done} CPUs before it are as wanted");
                Err(error::failure(reason(&error), message))
            }
        }
    }

    async fn list_memory_blocks(
        &self,
        _: Request<HardwareListMemoryBlocksRequest>,
    ) -> Result<Response<HardwareListMemoryBlocksResponse>, Status> {
        let source = self.source.clone();
        let listed = aside(move || Some((source.memory_block_bytes()?, source.memory_blocks())));
        let (block_bytes, blocks) = listed.await?.ok_or_else(no_blocks)?;
        Ok(Response::new(HardwareListMemoryBlocksResponse {
            blocks,
            block_bytes,
        }))
    }

    async fn set_memory_blocks(
        &self,
        request: Request<HardwareSetMemoryBlocksRequest>,
    ) -> Result<Response<HardwareSetMemoryBlocksResponse>, Status> {
        let wanted = request.into_inner().blocks;
        error::at_most("blocks", wanted.len(), MAX_MEMORY_BLOCKS)?;
        let source = self.source.clone();
        let switched = aside(move || {
            source.memory_block_bytes()?;
            let results = wanted.iter().map(|block| {
                let switched = source.set_memory_block(block.id, block.online);
                MemoryBlockResult {
                    id: block.id,
                    done: switched.is_ok(),
                    error: switched.map_or_else(|error| error.to_string(), |()| String::new()),
                }
            });
            Some(results.collect())
        });
        let results = switched.await?.ok_or_else(no_blocks)?;
        Ok(Response::new(HardwareSetMemoryBlocksResponse { results }))
    }
}

fn reason(error: &SwitchError) -> Reason {
    match error {
        SwitchError::Missing(_) => Reason::NotFound,
        SwitchError::Fixed(_) | SwitchError::Refused { .. } => Reason::KernelRefused,
    }
}

fn no_blocks() -> Status {
    error::failure(
        Reason::Unsupported,
        "the guest's kernel has no blocks of memory to switch (CONFIG_MEMORY_HOTPLUG)",
    )
}

#[cfg(test)]
mod tests {
    use hardware_server::Hardware as _;
    use tonic::Code;
    use vbridge_api::guest::v1::{CpuState, MemoryBlockState};

    use super::*;

    #[tokio::test]
    async fn the_first_switch_that_fails_is_told_with_those_that_were_turned() {
        let dir = tempfile::tempdir().unwrap();
        let cpu = dir.path().join("sys/devices/system/cpu/cpu1");
        std::fs::create_dir_all(&cpu).unwrap();
        std::fs::write(cpu.join("online"), "1").unwrap();
        let service = Hardware::new(Source::below(dir.path()));
        let cpus = [1, 9, 1].map(|id| CpuState { id, online: false });
        let request = HardwareSetCpusRequest {
            cpus: cpus.to_vec(),
        };
        let status = service.set_cpus(Request::new(request)).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(
            status.message(),
            "there is no CPU 9; 1 CPUs before it are as wanted"
        );
        let listed = service.list_cpus(Request::new(HardwareListCpusRequest {}));
        assert!(!listed.await.unwrap().into_inner().cpus[0].online);
    }

    #[tokio::test]
    async fn too_long_a_list_is_refused_and_a_kernel_without_blocks_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let service = Hardware::new(Source::below(dir.path()));
        let request = HardwareSetCpusRequest {
            cpus: vec![CpuState::default(); MAX_CPUS + 1],
        };
        let status = service.set_cpus(Request::new(request)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        let request = HardwareSetMemoryBlocksRequest {
            blocks: vec![MemoryBlockState::default()],
        };
        let status = service.set_memory_blocks(Request::new(request));
        assert_eq!(status.await.unwrap_err().code(), Code::Unimplemented);
    }
}
