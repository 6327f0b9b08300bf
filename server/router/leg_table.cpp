#include "server/router/leg_table.h"

#include <string>

namespace tessera::router {
namespace {

/// Carries the events of one call to the router thread. One thread at a time, as the contract says.
class LegSink final : public PrefillSink {
 public:
  LegSink(std::shared_ptr<RouterInbox> inbox, LegId leg) : inbox_(std::move(inbox)), leg_(leg) {}

  void on_token(const TokenEvent& event) override {
    if (!is_over_ && !inbox_->try_post_token(leg_, event)) {
      on_error(internal_error("the router is too far behind its workers"));
    }
  }
  void on_reserved(const std::string& address) override { post(LegEvent{leg_, Reserved{address}}); }
  void on_handed_over() override {
    post(LegEvent{leg_, HandedOver{}});
    is_over_ = true;
  }
  void on_error(const Status& status) override {
    post(LegEvent{leg_, status});
    is_over_ = true;
  }

 private:
  void post(LegEvent event) {
    if (!is_over_) {
      inbox_->post(std::move(event));
    }
  }

  const std::shared_ptr<RouterInbox> inbox_;  // shared: a call may outlast the router
  const LegId leg_;
  bool is_over_ = false;
};

}  // namespace

Result<LegId> LegTable::add(Leg leg, int64_t num_tokens) {
  leg.connection = pool_.connection(leg.worker);
  if (leg.connection == nullptr) {
    return unavailable("the worker is no longer connected");
  }
  pool_.note_opened(leg.worker, num_tokens);
  const LegId id = ++last_id_;
  legs_.emplace(id, std::move(leg));
  return id;
}

Result<LegId> LegTable::prefill(LegOwner owner, WorkerId worker, PrefillRequest request) {
  const auto num_tokens = static_cast<int64_t>(request.generation.prompt_ids.size());
  TESSERA_TRY(const LegId id,
              add({owner, LegKind::kPrefill, request.key, worker, nullptr}, num_tokens));
  Status status = legs_.at(id).connection->prefill()->prefill(
      std::move(request), std::make_shared<LegSink>(inbox_, id));
  if (!status.is_ok()) {
    forget(id);
    return status;
  }
  return id;
}

Result<LegId> LegTable::attach(LegOwner owner, WorkerId worker, AttachRequest request) {
  TESSERA_TRY(const LegId id, add({owner, LegKind::kAttach, request.key, worker, nullptr}, 0));
  Status status = legs_.at(id).connection->decode()->attach(std::move(request),
                                                            std::make_shared<LegSink>(inbox_, id));
  if (!status.is_ok()) {
    forget(id);
    return status;
  }
  return id;
}

Result<LegId> LegTable::generate(LegOwner owner,
                                 WorkerId worker,
                                 const HandoffKey& key,
                                 GenerationRequest request) {
  const auto num_tokens = static_cast<int64_t>(request.prompt_ids.size());
  TESSERA_TRY(const LegId id, add({owner, LegKind::kLocal, key, worker, nullptr}, num_tokens));
  Status status = legs_.at(id).connection->decode()->generate(
      key, std::move(request), std::make_shared<LegSink>(inbox_, id));
  if (!status.is_ok()) {
    forget(id);
    return status;
  }
  return id;
}

const Leg* LegTable::find(LegId id) const {
  const auto found = legs_.find(id);
  return found == legs_.end() ? nullptr : &found->second;
}

std::vector<LegId> LegTable::legs_on(WorkerId worker) const {
  std::vector<LegId> ids;
  for (const auto& [id, leg] : legs_) {
    if (leg.worker == worker) {
      ids.push_back(id);
    }
  }
  return ids;
}

void LegTable::forget(LegId id) {
  const auto found = legs_.find(id);
  if (found == legs_.end()) {
    return;
  }
  const WorkerId worker = found->second.worker;
  legs_.erase(found);
  pool_.note_closed(worker);
}

void LegTable::cancel(LegId id) {
  const Leg* leg = find(id);
  if (leg == nullptr) {
    return;
  }
  if (leg->kind == LegKind::kPrefill) {
    leg->connection->prefill()->cancel(leg->key);
  } else {
    leg->connection->decode()->cancel(leg->key);
  }
  forget(id);
}

}  // namespace tessera::router
