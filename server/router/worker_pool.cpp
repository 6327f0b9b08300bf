#include "server/router/worker_pool.h"

#include <algorithm>
#include <utility>

#include "engine/base/log.h"
#include "engine/base/text.h"

namespace tessera::router {
namespace {

/// Carries the reports of one connection to the router thread.
class Observer final : public WorkerObserver {
 public:
  Observer(std::shared_ptr<RouterInbox> inbox, WorkerId worker)
      : inbox_(std::move(inbox)), worker_(worker) {}

  void on_info(const WorkerInfo& info) override { inbox_->post(WorkerEvent{worker_, info}); }
  void on_load(const WorkerLoad& load) override { inbox_->post(WorkerEvent{worker_, load}); }
  void on_gone(const Status& status) override { inbox_->post(WorkerEvent{worker_, status}); }

 private:
  const std::shared_ptr<RouterInbox> inbox_;  // shared: a connection may outlast the router
  const WorkerId worker_;
};

Deadline::Clock::duration reconnect_delay(const RouterOptions& options, int32_t num_failures) {
  auto delay = options.reconnect_first;
  for (int32_t i = 1; i < num_failures && delay < options.reconnect_last; ++i) {
    delay *= 2;
  }
  return std::min(delay, options.reconnect_last);
}

}  // namespace

void WorkerPool::set_addresses(const AddressList& list, TimePoint now) {
  for (auto& [key, worker] : workers_) {
    if (key.first == list.role) {
      worker.is_listed = std::find(list.addresses.begin(), list.addresses.end(), key.second) !=
                         list.addresses.end();
      update_state(worker);
    }
  }
  for (const std::string& address : list.addresses) {
    const auto [place, is_new] = workers_.try_emplace(Key{list.role, address});
    if (is_new) {
      place->second.state = WorkerState::kLost;
      place->second.reconnect_at = now;
    }
  }
  drop_unlisted();
  tick(now);
  publish();
  show();
}

void WorkerPool::connect(const Key& key, Worker& worker) {
  worker.id = ++last_id_;
  worker.state = WorkerState::kConnecting;
  worker.reconnect_at = TimePoint::max();
  keys_[worker.id] = key;
  worker.connection = parts_.connector.connect(
      key.second, key.first, std::make_shared<Observer>(parts_.inbox, worker.id));
}

void WorkerPool::suspect(WorkerId worker, TimePoint now) {
  if (const auto found = keys_.find(worker); found != keys_.end()) {
    workers_.at(found->second).suspect_until = now + parts_.options.suspicion;
  }
}

void WorkerPool::clear_suspicion(Worker& worker) {
  if (worker.suspect_until != TimePoint::max()) {
    worker.suspect_until = TimePoint::max();
    ++version_;
  }
}

void WorkerPool::tick(TimePoint now) {
  if (show_at_ <= now) {
    show();
  }
  for (auto& [key, worker] : workers_) {
    if (worker.reconnect_at <= now) {
      connect(key, worker);
    }
    if (worker.suspect_until <= now) {
      clear_suspicion(worker);
    }
  }
}

WorkerPool::TimePoint WorkerPool::next_tick_at() const {
  TimePoint next = show_at_;
  for (const auto& [key, worker] : workers_) {
    next = std::min({next, worker.reconnect_at, worker.suspect_until});
  }
  return next;
}

bool WorkerPool::handle(const WorkerEvent& event, TimePoint now) {
  const auto found = keys_.find(event.worker);
  if (found == keys_.end()) {
    return false;  // of a connection that was dropped
  }
  const Key key = found->second;
  Worker& worker = workers_.at(key);
  const auto* const gone = std::get_if<Status>(&event.what);
  if (const auto* info = std::get_if<WorkerInfo>(&event.what)) {
    take_info(key, worker, *info);
  } else if (const auto* load = std::get_if<WorkerLoad>(&event.what)) {
    take_load(worker, *load);
  } else {
    end(key, worker, *gone, now);
  }
  drop_unlisted();
  publish();
  // Loads come often, and from many workers.
  show_at_ = std::min(show_at_, now + parts_.options.board_period);
  return gone != nullptr;
}

Status WorkerPool::check_model(const WorkerInfo& info) const {
  const RouterOptions& options = parts_.options;
  if (info.model_fingerprint != options.model_fingerprint) {
    return failed_precondition(str_cat("model_fingerprint is ",
                                       info.model_fingerprint,
                                       ", the router's is ",
                                       options.model_fingerprint));
  }
  if (info.vocab_size != options.vocab_size) {
    return failed_precondition(
        str_cat("vocab_size is ", info.vocab_size, ", the router's is ", options.vocab_size));
  }
  return Status::ok();
}

void WorkerPool::take_info(const Key& key, Worker& worker, const WorkerInfo& info) {
  worker.info = info;
  worker.num_failures = 0;
  if (const Status status = check_model(info); !status.is_ok()) {
    worker.state = WorkerState::kRefused;
    parts_.metrics.workers_refused.add();
    log_error("worker_refused",
              "worker_role",
              worker_role_name(key.first),
              "address",
              key.second,
              "model",
              info.model_name,
              "reason",
              status.message());
    return;
  }
  log_info("worker_up",
           "worker_role",
           worker_role_name(key.first),
           "address",
           key.second,
           "epoch",
           info.epoch,
           "layout",
           info.layout_fingerprint,
           "attention",
           info.attention);
  update_state(worker);
}

void WorkerPool::take_load(Worker& worker, const WorkerLoad& load) {
  worker.load = load;
  worker.num_placed_requests = 0;
  worker.num_placed_tokens = 0;
  clear_suspicion(worker);
  update_state(worker);
}

void WorkerPool::update_state(Worker& worker) {
  const bool is_open = worker.state != WorkerState::kRefused && worker.state != WorkerState::kLost;
  if (!is_open || !worker.info.has_value() || !worker.load.has_value()) {
    return;
  }
  const bool is_draining = worker.load->is_draining || !worker.is_listed;
  const WorkerState state = is_draining ? WorkerState::kDraining : WorkerState::kReady;
  if (worker.state != state && state == WorkerState::kReady) {
    ++version_;
  }
  worker.state = state;
}

void WorkerPool::end(const Key& key, Worker& worker, const Status& reason, TimePoint now) {
  if (reason.is_ok()) {
    log_info("worker_left", "worker_role", worker_role_name(key.first), "address", key.second);
  } else if (worker.num_failures == 0) {
    parts_.metrics.workers_lost.add();
    log_warning("worker_lost",
                "worker_role",
                worker_role_name(key.first),
                "address",
                key.second,
                "reason",
                reason.to_string());
  }
  keys_.erase(worker.id);
  Worker next;
  next.state = WorkerState::kLost;
  next.is_listed = worker.is_listed;
  next.num_failures = worker.num_failures + 1;
  next.reconnect_at = now + reconnect_delay(parts_.options, next.num_failures);
  worker = std::move(next);
}

void WorkerPool::drop_unlisted() {
  for (auto place = workers_.begin(); place != workers_.end();) {
    const Worker& worker = place->second;
    if (worker.is_listed || worker.num_open_calls > 0) {
      ++place;
      continue;
    }
    log_info("worker_dropped",
             "worker_role",
             worker_role_name(place->first.first),
             "address",
             place->first.second);
    keys_.erase(worker.id);
    place = workers_.erase(place);
  }
}

void WorkerPool::publish() {
  int64_t num_ready[2] = {0, 0};
  for (const auto& [key, worker] : workers_) {
    num_ready[key.first == WorkerRole::kDecode ? 1 : 0] += worker.state == WorkerState::kReady;
  }
  parts_.metrics.num_ready_prefill_workers.set(num_ready[0]);
  parts_.metrics.num_ready_decode_workers.set(num_ready[1]);
  const bool is_paired = has_pair();
  parts_.inbox->note_pair(is_paired);
  std::string layouts = is_paired ? std::string() : unpaired_layouts();
  if (!layouts.empty() && layouts != unpaired_layouts_) {
    log_warning("layouts_differ", "workers", layouts);
  }
  unpaired_layouts_ = std::move(layouts);
}

std::string WorkerPool::unpaired_layouts() const {
  const auto first_ready = [this](WorkerRole role) {
    return std::find_if(workers_.begin(), workers_.end(), [role](const auto& entry) {
      return entry.first.first == role && entry.second.state == WorkerState::kReady;
    });
  };
  const auto prefill = first_ready(WorkerRole::kPrefill);
  const auto decode = first_ready(WorkerRole::kDecode);
  if (prefill == workers_.end() || decode == workers_.end()) {
    return "";
  }
  return str_cat("prefill worker ",
                 prefill->first.second,
                 " keeps ",
                 prefill->second.info->layout_fingerprint,
                 ", decode group ",
                 decode->first.second,
                 " keeps ",
                 decode->second.info->layout_fingerprint);
}

void WorkerPool::show() {
  show_at_ = TimePoint::max();
  std::vector<WorkerStatus> all;
  all.reserve(workers_.size());
  for (const auto& [key, worker] : workers_) {
    all.push_back({.role = worker_role_name(key.first),
                   .address = key.second,
                   .state = worker.state,
                   .info = worker.info,
                   .load = worker.load,
                   .num_open_calls = worker.num_open_calls});
  }
  parts_.board.put(std::move(all));
}

std::vector<WorkerView> WorkerPool::ready(WorkerRole role) const {
  std::vector<WorkerView> views;
  for (const auto& [key, worker] : workers_) {
    const bool is_suspect = worker.suspect_until != TimePoint::max();
    if (key.first == role && worker.state == WorkerState::kReady && !is_suspect) {
      views.push_back({.id = worker.id,
                       .address = key.second,
                       .layout_fingerprint = worker.info->layout_fingerprint,
                       .max_local_prefill_tokens = worker.info->max_local_prefill_tokens,
                       .load = *worker.load,
                       .num_placed_requests = worker.num_placed_requests,
                       .num_placed_tokens = worker.num_placed_tokens,
                       .num_matched_tokens = 0});
    }
  }
  return views;
}

bool WorkerPool::has_pair() const {
  for (const auto& [key, prefill] : workers_) {
    if (key.first != WorkerRole::kPrefill || prefill.state != WorkerState::kReady) {
      continue;
    }
    const std::string& layout = prefill.info->layout_fingerprint;
    const bool has_partner =
        std::any_of(workers_.begin(), workers_.end(), [&layout](const auto& entry) {
          return entry.first.first == WorkerRole::kDecode &&
                 entry.second.state == WorkerState::kReady &&
                 entry.second.info->layout_fingerprint == layout;
        });
    if (has_partner) {
      return true;
    }
  }
  return false;
}

std::optional<WorkerState> WorkerPool::state_of(WorkerRole role, const std::string& address) const {
  const auto found = workers_.find({role, address});
  return found == workers_.end() ? std::nullopt : std::optional(found->second.state);
}

const WorkerPool::Worker* WorkerPool::find(WorkerId id) const {
  const auto found = keys_.find(id);
  return found == keys_.end() ? nullptr : &workers_.at(found->second);
}

bool WorkerPool::is_draining(WorkerId worker) const {
  const Worker* found = find(worker);
  return found != nullptr && found->state == WorkerState::kDraining;
}

std::shared_ptr<WorkerConnection> WorkerPool::connection(WorkerId worker) const {
  const Worker* found = find(worker);
  return found == nullptr ? nullptr : found->connection;
}

std::string WorkerPool::address(WorkerId worker) const {
  const auto found = keys_.find(worker);
  return found == keys_.end() ? std::string() : found->second.second;
}

void WorkerPool::note_opened(WorkerId worker, int64_t num_tokens) {
  if (const auto found = keys_.find(worker); found != keys_.end()) {
    Worker& entry = workers_.at(found->second);
    ++entry.num_open_calls;
    ++entry.num_placed_requests;
    entry.num_placed_tokens += num_tokens;
  }
}

void WorkerPool::note_closed(WorkerId worker) {
  if (const auto found = keys_.find(worker); found != keys_.end()) {
    --workers_.at(found->second).num_open_calls;
    drop_unlisted();
  }
}

}  // namespace tessera::router
