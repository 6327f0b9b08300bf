#include "server/roles/roles.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "engine/base/log.h"
#include "server/roles/front_door.h"
#include "server/roles/router_role.h"
#include "server/roles/stats_log.h"
#include "server/roles/worker_role.h"
#include "server/signals.h"
#include "server/text_parts.h"

namespace tessera {
namespace {

using OpenWorker = Result<std::unique_ptr<WorkerRoleProcess>> (*)(const cli::Options&,
                                                                  const ModelConfig&,
                                                                  bool);

Deadline shutdown_deadline(const cli::Options& options) {
  return Deadline::after(std::chrono::seconds(options.shutdown_timeout_s));
}

void print_configuration(const cli::ResolvedOptions& resolved) {
  log_lines("configuration", "configuration", cli::render_options(resolved));
}

/// From here on a signal ends the process.
void begin_drain(const cli::Options& options) {
  stop_at_next_signal();
  log_info("draining", "timeout_s", options.shutdown_timeout_s);
}

void end_drain(const Status& status) {
  if (!status.is_ok()) {
    log_warning("requests_cut_off", "reason", status.message());
  }
}

void serve_until_stopped(RouterRole& router) {
  while (wait_for_signal_blocking() == Signal::kReload) {
    router.reload_keys();
  }
}

Status run_worker(const cli::ResolvedOptions& resolved, const char* part, OpenWorker open) {
  const cli::Options& options = resolved.options;
  print_configuration(resolved);
  TESSERA_TRY(const ModelConfig config, ModelConfig::load(options.model));
  TESSERA_TRY(const auto worker, open(options, config, /*has_http=*/true));
  const StatsLog stats(std::chrono::seconds(options.stats_period_s),
                       {{part, [&worker] { return worker->stats(); }}});
  while (wait_for_signal_blocking() == Signal::kReload) {
    log_info("reload_ignored", "reason", "a worker has no keys");
  }
  begin_drain(options);
  end_drain(worker->drain_blocking(shutdown_deadline(options)));
  log_info("stopped");
  return Status::ok();
}

/// Workers that share a process with their router: loopback, ports that nobody else knows.
cli::Options worker_options(const cli::Options& options) {
  cli::Options worker = options;
  worker.rpc_host = "127.0.0.1";
  worker.rpc_port = 0;
  const bool cannot_slice =
      options.tensor_parallel_size != 0 && options.tensor_parallel_size % options.tpla_slices != 0;
  if (options.attention_sharding == "auto" && options.tpla_calibration.empty() && cannot_slice) {
    worker.attention_sharding = "replicated";  // of both: the model's calibration would need slices
  }
  return worker;
}

}  // namespace

Status run_router(const cli::ResolvedOptions& resolved) {
  const cli::Options& options = resolved.options;
  print_configuration(resolved);
  TESSERA_TRY(const ModelConfig config, ModelConfig::load(options.model));
  TESSERA_TRY(const TextParts text, load_text_parts(options, config));
  TESSERA_TRY(const auto router, RouterRole::open(options, config, text, {}));
  const StatsLog stats(std::chrono::seconds(options.stats_period_s),
                       {{"router", [&router] { return router->stats(); }}});
  serve_until_stopped(*router);
  begin_drain(options);
  end_drain(router->drain_blocking(shutdown_deadline(options)));
  log_info("stopped");
  return Status::ok();
}

Status run_prefill(const cli::ResolvedOptions& resolved) {
  return run_worker(resolved, "prefill", open_prefill_role);
}

Status run_decode(const cli::ResolvedOptions& resolved) {
  return run_worker(resolved, "decode", open_decode_role);
}

Status serve(const cli::ResolvedOptions& resolved) {
  const cli::Options& options = resolved.options;
  if (options.combined) {
    return serve_combined(resolved);
  }
  print_configuration(resolved);
  TESSERA_RETURN_IF_ERROR(FrontDoor::check_options(options));
  TESSERA_TRY(const ModelConfig config, ModelConfig::load(options.model));
  TESSERA_TRY(const TextParts text, load_text_parts(options, config));
  cli::Options worker = worker_options(options);
  TESSERA_TRY(auto decode, open_decode_role(worker, config, /*has_http=*/false));
  worker.tensor_parallel_size = 1;  // the option speaks of the decode group
  TESSERA_TRY(auto prefill, open_prefill_role(worker, config, /*has_http=*/false));
  cli::Options front = options;
  front.prefill_workers = {prefill->rpc_address()};
  front.decode_workers = {decode->rpc_address()};
  // What the workers can run and queue: more would only wait in the router to be refused.
  front.max_inflight_requests =
      std::min(options.max_inflight_requests, options.max_num_seqs + options.max_queued_requests);
  RouterRole::Neighbours workers;
  workers.add_families = [&](metrics::FamilyList& list) {
    prefill->add_families(list);
    decode->add_families(list);
    list.set_role("");
  };
  workers.liveness = [&] {
    const Status status = prefill->liveness();
    return status.is_ok() ? decode->liveness() : status;
  };
  TESSERA_TRY(auto router, RouterRole::open(front, config, text, std::move(workers)));
  auto stats = std::make_unique<const StatsLog>(
      std::chrono::seconds(options.stats_period_s),
      std::vector<StatsLog::Part>{{"router", [&router] { return router->stats(); }},
                                  {"prefill", [&prefill] { return prefill->stats(); }},
                                  {"decode", [&decode] { return decode->stats(); }}});
  serve_until_stopped(*router);
  begin_drain(options);
  const Deadline deadline = shutdown_deadline(options);
  end_drain(router->drain_blocking(deadline));
  stats.reset();  // it asks all three
  // Each goes before those that it is connected to: it would report them as lost.
  router.reset();
  end_drain(prefill->drain_blocking(deadline));
  prefill.reset();
  end_drain(decode->drain_blocking(deadline));
  log_info("stopped");
  return Status::ok();
}

}  // namespace tessera
