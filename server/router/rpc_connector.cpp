#include "server/router/rpc_connector.h"

#include <optional>
#include <utility>

#include "server/rpc/remote_workers.h"

namespace tessera::router {
namespace {

/// The listener's calls come from gRPC's threads, one at a time. The clients are made before the
/// observer hears of the worker, and the router asks for them only after that.
class RpcConnection final : public WorkerConnection, public rpc::WorkerWatch::Listener {
 public:
  RpcConnection(WorkerRole role,
                const rpc::RemoteWorkerOptions& options,
                std::shared_ptr<WorkerObserver> observer,
                std::shared_ptr<rpc::WorkerChannel> channel)
      : role_(role),
        options_(options),
        observer_(std::move(observer)),
        channel_(std::move(channel)) {}

  void start(const rpc::WorkerWatch::Options& options) { watch_.emplace(channel_, *this, options); }

  PrefillWorker* prefill() override { return prefill_.get(); }
  DecodeWorker* decode() override { return decode_.get(); }

  void on_worker_up(const rpc::WorkerIdentity& identity) override {
    const auto wanted =
        role_ == WorkerRole::kPrefill ? rpc::WorkerRole::kPrefill : rpc::WorkerRole::kDecode;
    if (identity.role != wanted) {
      end(failed_precondition("the worker at this address has the other role"));
    } else if (is_up_) {
      end(unavailable("another worker answers at this address"));
    } else if (!is_gone_) {
      is_up_ = true;
      make_client(identity.info);
      observer_->on_info(identity.info);
    }
  }
  void on_worker_load(const WorkerLoad& load) override {
    if (!is_up_ || is_gone_) {
      return;
    }
    if (prefill_ != nullptr) {
      prefill_->set_load(load);
    } else {
      decode_->set_load(load);
    }
    observer_->on_load(load);
  }
  void on_worker_gone(const Status& status) override { end(status); }

 private:
  void make_client(const WorkerInfo& info) {
    if (role_ == WorkerRole::kPrefill) {
      prefill_ = std::make_unique<rpc::RemotePrefillWorker>(channel_, info, options_);
    } else {
      decode_ = std::make_unique<rpc::RemoteDecodeWorker>(channel_, info, options_);
    }
  }
  void end(const Status& status) {
    if (!std::exchange(is_gone_, true)) {
      observer_->on_gone(status);
    }
  }

  const WorkerRole role_;
  const rpc::RemoteWorkerOptions options_;
  const std::shared_ptr<WorkerObserver> observer_;     // shared with the router's list
  const std::shared_ptr<rpc::WorkerChannel> channel_;  // shared with the clients and the watch
  std::unique_ptr<rpc::RemotePrefillWorker> prefill_;
  std::unique_ptr<rpc::RemoteDecodeWorker> decode_;
  bool is_up_ = false;
  bool is_gone_ = false;
  std::optional<rpc::WorkerWatch> watch_;  // last: its calls end before the rest goes
};

/// Of an address that no channel can be made for.
class NoConnection final : public WorkerConnection {
 public:
  PrefillWorker* prefill() override { return nullptr; }
  DecodeWorker* decode() override { return nullptr; }
};

}  // namespace

std::shared_ptr<WorkerConnection> RpcConnector::connect(const std::string& address,
                                                        WorkerRole role,
                                                        std::shared_ptr<WorkerObserver> observer) {
  auto channel = rpc::WorkerChannel::create(address, options_.channel);
  if (!channel.is_ok()) {
    observer->on_gone(channel.status());
    return std::make_shared<NoConnection>();
  }
  auto connection = std::make_shared<RpcConnection>(
      role, options_.workers, std::move(observer), std::move(channel).value());
  connection->start(options_.watch);
  return connection;
}

}  // namespace tessera::router
