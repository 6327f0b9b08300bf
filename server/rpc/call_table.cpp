#include "server/rpc/call_table.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include <grpcpp/client_context.h>

#include "engine/base/text.h"
#include "server/rpc/request_id.h"
#include "server/rpc/wire_limits.h"

namespace tessera::rpc {

void set_deadline(grpc::ClientContext& context, const Deadline& deadline) {
  const Deadline latest = Deadline::after(std::chrono::milliseconds(kMaxTimeoutMs));
  const auto left = std::min(deadline.at(), latest.at()) - Deadline::Clock::now();
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::duration_cast<std::chrono::system_clock::duration>(left));
}

void prepare_context(grpc::ClientContext& context,
                     const HandoffKey& key,
                     const Deadline& deadline) {
  const bool is_infinite = deadline.is_infinite();
  set_deadline(context, is_infinite ? deadline : Deadline(deadline.at() + std::chrono::seconds(1)));
  context.AddMetadata(kRequestIdKey, key.request.to_string());
}

Status CallTable::add(const HandoffKey& key, std::shared_ptr<CancellableCall> call) {
  const std::lock_guard lock(mutex_);
  if (calls_.size() >= limit_) {
    return resource_exhausted(str_cat("the worker has ", limit_, " open calls, the limit"));
  }
  if (!calls_.emplace(key, std::move(call)).second) {
    return {StatusCode::kAlreadyExists, str_cat("a call for ", key.to_string(), " is open")};
  }
  return Status::ok();
}

void CallTable::remove(const HandoffKey& key, const CancellableCall* call) {
  std::shared_ptr<CancellableCall> removed;
  const std::lock_guard lock(mutex_);
  const auto entry = calls_.find(key);
  if (entry != calls_.end() && entry->second.get() == call) {
    removed = std::move(entry->second);
    calls_.erase(entry);
  }
}

void CallTable::cancel(const HandoffKey& key) {
  std::shared_ptr<CancellableCall> call;
  {
    const std::lock_guard lock(mutex_);
    const auto entry = calls_.find(key);
    if (entry == calls_.end()) {
      return;
    }
    call = std::move(entry->second);
    calls_.erase(entry);
  }
  call->cancel(true);
}

void CallTable::cancel_all() {
  decltype(calls_) calls;
  {
    const std::lock_guard lock(mutex_);
    calls.swap(calls_);
  }
  for (const auto& [key, call] : calls) {
    call->cancel(false);
  }
}

}  // namespace tessera::rpc
