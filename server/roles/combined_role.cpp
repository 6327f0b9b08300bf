// One engine that prefills and decodes, behind HTTP and gRPC.

#include <chrono>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/log.h"
#include "engine/base/size_text.h"
#include "engine/base/text.h"
#include "engine/cache/latent_layout.h"
#include "engine/serving/engine.h"
#include "engine/serving/model_parts.h"
#include "engine/serving/worker_info.h"
#include "engine/serving/worker_load.h"
#include "server/metrics/engine_families.h"
#include "server/metrics/vllm_families.h"
#include "server/roles/front_door.h"
#include "server/roles/role_parts.h"
#include "server/roles/roles.h"
#include "server/roles/stats_log.h"
#include "server/router/cluster_json.h"
#include "server/signals.h"
#include "server/text_parts.h"

namespace tessera {
namespace {

using Seconds = std::chrono::seconds;

/// New requests are refused from here on; open ones get until the deadline, and then the time to
/// send what the engine ended them with.
void drain(const cli::Options& options, Engine& engine, FrontDoor& door) {
  stop_at_next_signal();
  log_info("draining", "timeout_s", options.shutdown_timeout_s);
  door.set_draining();
  const Status status = engine.drain_blocking(Deadline::after(Seconds(options.shutdown_timeout_s)));
  const bool have_all_ended = door.drain_blocking(Deadline::after(kLastWrites));
  if (!have_all_ended || !status.is_ok()) {
    log_warning("requests_cut_off", "reason", "shutdown timeout");
  }
}

/// The picture of a cluster of one.
std::string combined_json(const Engine& engine, const WorkerInfo& info) {
  const EngineMetrics& metrics = engine.metrics();
  const WorkerLoad load = worker_load(engine);
  const router::FrontStatus front{
      .kind = "combined",
      .num_in_flight = load.num_requests_running + load.num_requests_waiting,
      .num_waiting = load.num_requests_waiting,
      .num_finished =
          metrics.requests_finished_stop.value() + metrics.requests_finished_length.value(),
      .num_failed = metrics.requests_failed.value(),
      .num_rejected = metrics.requests_rejected.value(),
      .num_prompt_tokens = load.num_prompt_tokens,
      .num_generated_tokens = load.num_generated_tokens,
      .first_token_seconds = &metrics.time_to_first_token_seconds,
      .inter_token_seconds = &metrics.inter_token_seconds};
  const router::WorkerStatus worker{
      .role = "combined",
      .address = "this process",
      .state = load.is_draining ? router::WorkerState::kDraining : router::WorkerState::kReady,
      .info = info,
      .load = load,
      .num_open_calls = 0};
  return router::cluster_json(front, {worker});
}

}  // namespace

Status serve_combined(const cli::ResolvedOptions& resolved) {
  const cli::Options& options = resolved.options;
  log_lines("configuration", "configuration", cli::render_options(resolved));
  // What can fail at once fails before the weights are read.
  TESSERA_RETURN_IF_ERROR(FrontDoor::check_options(options));
  TESSERA_TRY(const ModelConfig config, ModelConfig::load(options.model));
  TESSERA_TRY(const TextParts text, load_text_parts(options, config));
  TESSERA_TRY(const auto parts, load_model(options, config, WorkerRole::kCombined));
  TESSERA_TRY(const auto owned,
              Engine::create(make_engine_options(options, *parts), parts->runner()));
  Engine& engine = *owned;
  FrontDoor::Parts door_parts{
      .config = config,
      .text = text,
      .service = engine,
      .max_model_len = parts->plan().memory.max_model_len,
      .liveness = [&engine] { return check_heartbeat(engine.heartbeat_age()); },
      .add_service_families =
          [&engine](metrics::FamilyList& list) {
            list.set_role("combined");
            metrics::add_engine_families(list, engine.metrics());
            metrics::add_vllm_engine_families(list, engine.metrics(), nullptr, kBlockTokens);
            metrics::add_vllm_request_families(list, engine.metrics());
            list.set_role("");
          },
      .cluster_json =
          [&engine, info = make_worker_info(options, *parts)] {
            return combined_json(engine, info);
          }};
  TESSERA_TRY(const auto door, FrontDoor::open(options, std::move(door_parts)));
  const StatsLog stats(
      std::chrono::seconds(options.stats_period_s),
      {{"combined", [&engine] { return metrics::read_stats(engine.metrics(), 0); }}});
  while (wait_for_signal_blocking() == Signal::kReload) {
    door->reload_keys();
  }
  drain(options, engine, *door);
  log_info("stopped");
  return Status::ok();
}

Status check_config(const cli::ResolvedOptions& resolved) {
  const cli::Options& options = resolved.options;
  std::fputs(cli::render_options(resolved).c_str(), stdout);
  TESSERA_TRY(const ModelConfig config, ModelConfig::load(options.model));
  TESSERA_RETURN_IF_ERROR(FrontDoor::check_options(options));
  const std::vector<WorkerRole> roles =
      options.combined ? std::vector{WorkerRole::kCombined}
                       : std::vector{WorkerRole::kPrefill, WorkerRole::kDecode};
  for (const WorkerRole role : roles) {
    TESSERA_TRY(const WorkerPlan plan, plan_worker(options, config, role));
    const std::string title(plan_title(role));
    std::fputs(str_cat("memory of the ", title, "\n").c_str(), stdout);
    std::fputs(describe(plan.memory, plan.config).c_str(), stdout);
    if (!plan.memory.is_within_memory()) {
      return resource_exhausted(str_cat("weights and cache of the ",
                                        title,
                                        " need ",
                                        format_size_approx(plan.memory.needed_bytes()),
                                        ", available are ",
                                        format_size_approx(plan.memory.available_bytes)));
    }
  }
  return Status::ok();
}

}  // namespace tessera
