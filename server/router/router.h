// The piece behind the OpenAI front end that serves requests with a prefill worker and a decode
// group: one router thread that runs a RouterLoop, a resolver thread, and the doors for others. Any
// number of routers may use the same workers; none knows of the others. See README.md here.
#pragma once

#include <memory>
#include <thread>

#include "engine/base/deadline.h"
#include "engine/base/result.h"
#include "engine/request/generation_service.h"
#include "server/router/cluster_board.h"
#include "server/router/router_inbox.h"
#include "server/router/router_loop.h"
#include "server/router/router_metrics.h"
#include "server/router/router_options.h"
#include "server/router/worker_addresses.h"
#include "server/router/worker_connector.h"

namespace tessera::router {

class Router final : public GenerationService {
 public:
  /// Starts the threads; workers are connected in the background. `connector` outlives the router.
  /// `resolver` is for tests; none: the system's. Errors: INVALID_ARGUMENT naming the option.
  [[nodiscard]] static Result<std::unique_ptr<Router>> create(RouterOptions options,
                                                              WorkerConnector& connector,
                                                              Resolver resolver = {});
  /// Ends what is still live with UNAVAILABLE and cancels it at the workers.
  ~Router() override;
  Router(const Router&) = delete;
  Router& operator=(const Router&) = delete;

  /// Also when no worker is ready: then the request waits, within bounds. Hashes the prompt, about
  /// 1 µs for 64 tokens.
  [[nodiscard]] Status submit(GenerationRequest request, std::shared_ptr<TokenSink> sink) override;
  void cancel(const RequestId& id) override;
  [[nodiscard]] Status readiness() const override;

  /// As Engine.
  void begin_drain();
  [[nodiscard]] Status drain_blocking(Deadline deadline);

  [[nodiscard]] const RouterOptions& options() const noexcept { return options_; }
  [[nodiscard]] const RouterMetrics& metrics() const noexcept { return metrics_; }
  [[nodiscard]] ClusterBoard::Snapshot workers() const { return board_.read(); }

 private:
  Router(RouterOptions options, WorkerConnector& connector);
  void watch(WorkerSpec prefill, WorkerSpec decode, const Resolver& resolver);
  void run_thread(const std::stop_token& stop);
  [[nodiscard]] Status check(const GenerationRequest& request) const;

  const RouterOptions options_;
  const BlockHash salt_;  // a router's record of prefixes is nobody else's
  RouterMetrics metrics_;
  ClusterBoard board_;
  const std::shared_ptr<RouterInbox> inbox_;  // shared with sinks and observers
  RouterLoop loop_;                           // of the router thread
  std::unique_ptr<AddressWatcher> watcher_;
  std::jthread thread_;  // last: joined before what it uses dies
};

}  // namespace tessera::router
