//! `Hardware`: CPUs and blocks of memory.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use tonic::Status;
use vbridge_api::guest::v1 as api;

use super::{agent::Agent, failure::Failure, refusal::at_most};
use crate::error::{Reason, harmless};

/// CPUs, as `hardware.proto` promises.
const MAX_CPUS: usize = 1024;

/// Blocks of memory in one request, as `hardware.proto` promises, and in one answer.
const MAX_BLOCKS: usize = 32_768;

/// A CPU, as the agent tells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Vcpu {
    logical_id: u32,
    pub(super) online: bool,
    #[serde(default)]
    can_offline: bool,
}

pub(super) async fn list_cpus(
    agent: Arc<Agent>,
    _: api::HardwareListCpusRequest,
) -> Result<api::HardwareListCpusResponse, Status> {
    Ok(api::HardwareListCpusResponse {
        cpus: cpus(&agent).await?,
    })
}

async fn cpus(agent: &Agent) -> Result<Vec<api::Cpu>, Status> {
    let mut cpus: Vec<Vcpu> = agent.ask("guest-get-vcpus", Value::Null).await?;
    cpus.sort_by_key(|cpu| cpu.logical_id);
    cpus.truncate(MAX_CPUS);
    let cpus = cpus.into_iter().map(|cpu| api::Cpu {
        id: cpu.logical_id,
        online: cpu.online,
        can_offline: cpu.can_offline,
    });
    Ok(cpus.collect())
}

pub(super) async fn set_cpus(
    agent: Arc<Agent>,
    request: api::HardwareSetCpusRequest,
) -> Result<api::HardwareSetCpusResponse, Status> {
    let wanted = request.cpus;
    at_most("cpus", wanted.len(), MAX_CPUS)?;
    if !wanted.is_empty() {
        let vcpus = wanted.iter();
        let vcpus = vcpus.map(|cpu| json!({ "logical-id": cpu.id, "online": cpu.online }));
        let vcpus: Vec<Value> = vcpus.collect();
        let command = "guest-set-vcpus";
        let done: usize = agent.ask(command, json!({ "vcpus": vcpus })).await?;
        // The agent says how many it has done, and why no more only if it was none.
        if let Some(failed) = wanted.get(done) {
            let message = format!(
                "CPU {} could not be switched, and qemu-guest-agent does not tell why; {done} CPUs before it are as wanted",
                failed.id
            );
            return Err(Reason::AgentRefused.status("", message));
        }
    }
    Ok(api::HardwareSetCpusResponse {
        cpus: cpus(&agent).await?,
    })
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Block {
    phys_index: u64,
    online: bool,
    #[serde(default)]
    can_offline: bool,
}

#[derive(Debug, Deserialize)]
struct BlockInfo {
    size: u64,
}

pub(super) async fn list_blocks(
    agent: Arc<Agent>,
    _: api::HardwareListMemoryBlocksRequest,
) -> Result<api::HardwareListMemoryBlocksResponse, Status> {
    let info: BlockInfo = agent
        .ask("guest-get-memory-block-info", Value::Null)
        .await?;
    let mut blocks: Vec<Block> = agent.ask("guest-get-memory-blocks", Value::Null).await?;
    blocks.sort_by_key(|block| block.phys_index);
    blocks.truncate(MAX_BLOCKS);
    let blocks = blocks.into_iter().map(|block| api::MemoryBlock {
        id: block.phys_index,
        online: block.online,
        can_offline: block.can_offline,
    });
    Ok(api::HardwareListMemoryBlocksResponse {
        blocks: blocks.collect(),
        block_bytes: info.size,
    })
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct BlockResult {
    phys_index: u64,
    response: String,
    error_code: Option<i64>,
}

pub(super) async fn set_blocks(
    agent: Arc<Agent>,
    request: api::HardwareSetMemoryBlocksRequest,
) -> Result<api::HardwareSetMemoryBlocksResponse, Status> {
    let wanted = request.blocks;
    at_most("blocks", wanted.len(), MAX_BLOCKS)?;
    if wanted.is_empty() {
        return Ok(api::HardwareSetMemoryBlocksResponse::default());
    }
    let blocks = wanted.iter();
    let blocks = blocks.map(|block| json!({ "phys-index": block.id, "online": block.online }));
    let blocks: Vec<Value> = blocks.collect();
    let command = "guest-set-memory-blocks";
    let done: Vec<BlockResult> = agent.ask(command, json!({ "mem-blks": blocks })).await?;
    // It stops at the first that its kernel does not know.
    let as_asked =
        |(wanted, done): (&api::MemoryBlockState, &BlockResult)| wanted.id == done.phys_index;
    if done.len() > wanted.len() || !wanted.iter().zip(&done).all(as_asked) {
        let why = "its results are of other blocks than those that were asked for";
        return Err(Failure::garbled(command, why).status());
    }
    let mut results: Vec<_> = done.iter().map(block_result).collect();
    let rest = wanted.iter().skip(results.len());
    let rest: Vec<_> = rest
        .map(|block| api::MemoryBlockResult {
            id: block.id,
            done: false,
            error: "qemu-guest-agent has stopped before it".to_owned(),
        })
        .collect();
    results.extend(rest);
    Ok(api::HardwareSetMemoryBlocksResponse { results })
}

fn block_result(result: &BlockResult) -> api::MemoryBlockResult {
    let done = result.response == "success";
    let why = harmless(&result.response);
    api::MemoryBlockResult {
        id: result.phys_index,
        done,
        error: match (done, result.error_code) {
            (true, _) => String::new(),
            (false, None) => why,
            (false, Some(code)) => format!("{why} (error {code} of the guest's kernel)"),
        },
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use vbridge_api::guest::v1::hardware_client::HardwareClient;

    use super::*;
    use crate::qemu::script::Script;

    #[tokio::test]
    async fn cpus_are_listed_by_number() {
        let script = Script::fixed([(
            "guest-get-vcpus",
            json!([{ "logical-id": 1, "online": true, "can-offline": true }, { "logical-id": 0, "online": true }]),
        )]);
        let mut client = HardwareClient::new(script.serve());
        let cpus = client.list_cpus(api::HardwareListCpusRequest {}).await;
        let cpus = cpus.unwrap().into_inner().cpus;
        assert_eq!(cpus.iter().map(|cpu| cpu.id).collect::<Vec<_>>(), [0, 1]);
        assert!(cpus[1].can_offline && !cpus[0].can_offline);
    }

    #[tokio::test]
    async fn cpus_are_switched_and_the_first_that_is_not_is_named() {
        for (done, code) in [
            (json!(2), Code::Ok),
            (json!(1), Code::FailedPrecondition),
            (json!(-1), Code::Internal),
            (json!(99), Code::Ok),
        ] {
            let script = Script::fixed([("guest-set-vcpus", done), ("guest-get-vcpus", json!([]))]);
            let mut client = HardwareClient::new(script.serve());
            let cpus = [4, 5].map(|id| api::CpuState {
                id,
                online: id == 4,
            });
            let request = api::HardwareSetCpusRequest {
                cpus: cpus.to_vec(),
            };
            match client.set_cpus(request).await {
                Ok(_) => assert_eq!(code, Code::Ok),
                Err(status) => {
                    assert_eq!(status.code(), code);
                    let names = status.message().contains("CPU 5");
                    assert_eq!(names, code == Code::FailedPrecondition, "{status}");
                }
            }
            let vcpus =
                json!([{ "logical-id": 4, "online": true }, { "logical-id": 5, "online": false }]);
            assert_eq!(script.last("guest-set-vcpus"), json!({ "vcpus": vcpus }));
        }
    }

    #[tokio::test]
    async fn blocks_are_listed_with_their_size() {
        let script = Script::fixed([
            (
                "guest-get-memory-block-info",
                json!({ "size": 134_217_728 }),
            ),
            (
                "guest-get-memory-blocks",
                json!([{ "phys-index": 7, "online": true }, { "phys-index": 0, "online": true }]),
            ),
        ]);
        let mut client = HardwareClient::new(script.serve());
        let request = api::HardwareListMemoryBlocksRequest {};
        let answer = client.list_memory_blocks(request).await.unwrap();
        let answer = answer.into_inner();
        assert_eq!((answer.block_bytes, answer.blocks[0].id), (134_217_728, 0));
    }

    async fn set(answer: Value) -> Result<Vec<api::MemoryBlockResult>, Status> {
        let script = Script::fixed([("guest-set-memory-blocks", answer)]);
        let mut client = HardwareClient::new(script.serve());
        let blocks = [1, 2].map(|id| api::MemoryBlockState { id, online: true });
        let blocks = blocks.to_vec();
        let request = api::HardwareSetMemoryBlocksRequest { blocks };
        Ok(client
            .set_memory_blocks(request)
            .await?
            .into_inner()
            .results)
    }

    #[tokio::test]
    async fn each_block_has_a_result_even_if_the_agent_has_stopped_before_it() {
        let answer = json!([{ "phys-index": 1, "response": "operation-failed", "error-code": 16 }]);
        let results = set(answer).await.unwrap();
        assert_eq!(results.len(), 2);
        assert!(results[0].error.contains("operation-failed (error 16"));
        assert!(results[1].error.contains("stopped"));
        let answer = json!([{ "phys-index": 1, "response": "success" }, { "phys-index": 2, "response": "success" }]);
        assert!(set(answer).await.unwrap().iter().all(|result| result.done));
        for wrong in [
            json!([{ "phys-index": 9, "response": "success" }]),
            json!([{ "phys-index": 1 }]),
            json!({}),
        ] {
            assert_eq!(set(wrong).await.unwrap_err().code(), Code::Internal);
        }
    }
}
