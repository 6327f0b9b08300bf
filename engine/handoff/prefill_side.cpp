#include "engine/handoff/prefill_side.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/log.h"
#include "engine/base/steady_time.h"
#include "engine/base/text.h"
#include "engine/scheduler/stop_criteria.h"

namespace tessera {
namespace {

constexpr int64_t kMaxRetryAfterMs = 10'000;

}  // namespace

PrefillSide::PrefillSide(PrefillSideOptions options, const Parts& parts)
    : options_(std::move(options)),
      mailbox_(parts.mailbox),
      port_(parts.port),
      sender_(parts.sender),
      source_(parts.source),
      metrics_(parts.metrics),
      links_(options_, parts.port, parts.sender, parts.source, parts.metrics, *this),
      jitter_(static_cast<std::minstd_rand::result_type>(options_.epoch | 1U)) {}

PrefillSide::~PrefillSide() {
  TESSERA_DCHECK(handoffs_.empty(), "the loop ends every group");
}

void PrefillSide::bind(EngineHost& host, std::function<void()> wake) {
  host_ = &host;
  mailbox_.set_waker(std::move(wake));
}

void PrefillSide::begin_turn(TimePoint now) {
  now_ = now;
  mailbox_.take(events_);
  for (const PrefillMailbox::Event& event : events_) {
    std::visit([this](const auto& detail) { on_event(detail); }, event);
  }
  links_.sweep(now);
  seek_reservations();
  metrics_.pinned_blocks.set(pinned_.num_blocks());
  metrics_.waiting_for_room.set(static_cast<int64_t>(queue_.size()));
}

bool PrefillSide::may_start(const SequenceGroup& group) {
  const Handoff* handoff = find(group.key());
  return !handoff->needs_reservation || handoff->state == State::kSending;
}

void PrefillSide::on_adopted(SequenceGroup& group) {
  const HandoffKey key = group.key();
  const Sequence& first = *group.choices.front();
  const int64_t num_total = StopCriteria({}, options_.max_model_len)
                                .max_total_tokens(group.sampling, first.num_prompt_tokens());
  auto handoff = std::make_unique<Handoff>();
  handoff->key = key;
  handoff->group = &group;
  // PrefillEngine, the only door, takes nothing but PrefillSinks.
  handoff->sink = std::static_pointer_cast<PrefillSink>(group.sink);
  handoff->needs_reservation = num_total > first.num_tokens() + 1;
  Handoff& adopted = *handoffs_.emplace(key, std::move(handoff)).first->second;
  if (adopted.needs_reservation) {
    queue_.push_back(&adopted);
  }
  supersede(key);
}

void PrefillSide::supersede(const HandoffKey& key) {
  // All attempts of one request lie together; of two the higher one stays.
  auto other = handoffs_.lower_bound({key.request, 0});
  std::vector<HandoffKey> attempts;
  for (; other != handoffs_.end() && other->first.request == key.request; ++other) {
    attempts.push_back(other->first);
  }
  attempts.pop_back();  // the highest
  for (const HandoffKey& lower : attempts) {
    fail(*find(lower), {StatusCode::kAborted, "a later attempt of the request has come"});
  }
}

void PrefillSide::on_event(const PrefillMailbox::LinkMessage& event) {
  DecodeLink* link = links_.find(event.link);
  if (link == nullptr) {
    return;  // the link was given up
  }
  links_.note_heard(*link, now_);
  std::visit([&](const auto& message) { on_message(*link, message); }, event.message);
}

void PrefillSide::on_event(const PrefillMailbox::LinkClosed& event) {
  if (DecodeLink* link = links_.find(event.link)) {
    links_.fail(*link, event.status, now_);
  }
}

void PrefillSide::on_event(const PrefillMailbox::PeerConnected& event) {
  links_.on_connected(event.peer, now_);
}

void PrefillSide::on_event(const PrefillMailbox::KeyDrained& event) {
  pinned_.release(event.peer, event.key);
}

void PrefillSide::on_event(const PrefillMailbox::ParcelFailed& event) {
  metrics_.failed_parcels.add();
  Handoff* handoff = find(event.key);
  if (handoff != nullptr && handoff->link != nullptr && handoff->link->peer == event.peer) {
    fail(*handoff, unavailable(str_cat("a parcel was refused: ", event.status.message())));
  }
}

void PrefillSide::on_event(const PrefillMailbox::PeerGone& event) {
  if (DecodeLink* link = links_.find_peer(event.peer)) {
    links_.fail(*link, event.status, now_, true);
  }
  pinned_.release_all(event.peer);
}

PrefillSide::Handoff* PrefillSide::find(const HandoffKey& key) {
  const auto found = handoffs_.find(key);
  return found == handoffs_.end() ? nullptr : found->second.get();
}

PrefillSide::Handoff* PrefillSide::find_on(const DecodeLink& link, const HandoffKey& key) {
  Handoff* handoff = find(key);
  return handoff != nullptr && handoff->link == &link ? handoff : nullptr;
}

void PrefillSide::on_link_ready(DecodeLink& link) {
  for (const auto& [key, handoff] : handoffs_) {
    if (handoff->state == State::kReserving && handoff->link == &link && !handoff->is_asked) {
      // It is asked in this turn, in the order of the queue and no more than may be.
      handoff->state = State::kQueued;
      handoff->link = nullptr;
      handoff->reached_at = now_;
      handoff->was_reached = true;
    }
  }
}

void PrefillSide::on_link_lost(DecodeLink& link, const Status& status) {
  std::vector<HandoffKey> lost;
  for (const auto& [key, handoff] : handoffs_) {
    if (handoff->link != &link) {
      continue;
    }
    if (handoff->state == State::kReserving) {
      ask_next(*handoff);
    } else {
      lost.push_back(key);
    }
  }
  for (const HandoffKey& key : lost) {
    Handoff& handoff = *find(key);
    // Nothing to tell to a dead link. What the transport still reads of the blocks ends with the
    // peer, which is disconnected by the caller or gone.
    BlockTable& table =
        handoff.table.num_blocks() > 0 ? handoff.table : handoff.group->choices.front()->table();
    if (handoff.num_sent > handoff.num_acked) {
      pinned_.pin(link.peer, key, std::move(table));
    }
    handoff.link = nullptr;
    handoff.state = State::kDone;
    fail(handoff,
         unavailable(
             str_cat("the link to decode at ", link.address, " is lost: ", status.message())));
  }
}

std::vector<HandoffKey> PrefillSide::live_keys(const DecodeLink& link) const {
  std::vector<HandoffKey> keys;
  for (const auto& [key, handoff] : handoffs_) {
    if (handoff->link == &link && (handoff->is_asked || handoff->state != State::kReserving)) {
      keys.push_back(key);
    }
  }
  return keys;
}

void PrefillSide::on_message(DecodeLink& link, const Welcome& welcome) {
  links_.on_welcome(link, welcome, now_);
}

void PrefillSide::on_message(DecodeLink& link, const Grant& grant) {
  Handoff* handoff = find_on(link, grant.key);
  if (handoff == nullptr || handoff->state != State::kReserving) {
    return;  // cancelled meanwhile: its Abort follows the Reserve
  }
  const int64_t num_held = grant.num_held_tokens;
  const int64_t num_tokens = handoff->group->choices.front()->num_tokens();
  if (num_held < 0 || num_held > num_tokens || num_held % kBlockTokens != 0) {
    fail(*handoff,
         internal_error(str_cat("decode holds ", num_held, " of ", num_tokens, " tokens")));
    return;
  }
  handoff->state = State::kSending;
  handoff->num_held_tokens = num_held;
  handoff->num_prompt_tokens = num_tokens;
  handoff->parcels = ParcelPlan(handoff->key, link.layout, num_tokens, num_held);
  metrics_.reserve_wait_seconds.observe(seconds_between(handoff->asked_at, now_));
  log_debug(
      "handoff_granted", "key", grant.key.to_string(), "held_tokens", num_held, "link", link.id);
  handoff->sink->on_reserved(link.address);
}

void PrefillSide::on_message(DecodeLink& link, const Busy& busy) {
  Handoff* handoff = find_on(link, busy.key);
  if (handoff == nullptr || handoff->state != State::kReserving) {
    return;
  }
  metrics_.busy_answers.add();
  handoff->reached_at = now_;
  handoff->was_reached = true;
  handoff->busy.insert(link.address);
  const HandoffTimes::Duration pause =
      std::chrono::milliseconds(std::clamp<int64_t>(busy.retry_after_ms, 0, kMaxRetryAfterMs));
  handoff->pause = std::max(handoff->pause, pause);
  ask_next(*handoff);
}

void PrefillSide::on_message(DecodeLink& link, const Reject& reject) {
  Handoff* handoff = find_on(link, reject.key);
  if (handoff == nullptr || handoff->state != State::kReserving) {
    return;
  }
  if (reject.status.code() == StatusCode::kUnavailable) {  // it drains; another one may not
    ask_next(*handoff);
    return;
  }
  handoff->state = State::kDone;
  fail(*handoff, reject.status);
}

void PrefillSide::on_message(DecodeLink& link, const Committed& committed) {
  Handoff* handoff = find_on(link, committed.key);
  if (handoff == nullptr) {
    return;
  }
  if (handoff->state != State::kSealed) {  // the stored answer to a Reserve that came before
    handoff->state = State::kDone;
    fail(*handoff, {StatusCode::kAborted, "this attempt was handed over before"});
    return;
  }
  metrics_.commit_wait_seconds.observe(seconds_between(handoff->sealed_at, now_));
  if (handoff->num_acked != handoff->num_sent) {
    note_transferred(*handoff, now_);  // decode has all; the last acknowledgements come later
  }
  complete(*handoff);
}

void PrefillSide::complete(Handoff& handoff) {
  log_debug("handoff_committed", "key", handoff.key.to_string(), "parcels", handoff.num_sent);
  metrics_.handoff_bytes.observe(static_cast<double>(handoff.num_sent_bytes));
  metrics_.handoff_parcels.observe(static_cast<double>(handoff.num_sent));
  handoff.state = State::kDone;
  handoff.outcome = StatusCode::kOk;
  handoff.sink->on_handed_over();
  host_->end_group(*handoff.group);
}

void PrefillSide::on_message(DecodeLink& link, const Aborted& aborted) {
  Handoff* handoff = find_on(link, aborted.key);
  if (handoff == nullptr) {
    return;
  }
  if (handoff->state == State::kSending || handoff->state == State::kSealed ||
      handoff->state == State::kReserving) {
    handoff->state = State::kDone;
  }
  const std::string text = str_cat("decode has dropped the handoff: ", aborted.status.message());
  fail(*handoff,
       aborted.status.code() == StatusCode::kInvalidArgument ? invalid_argument(text)
                                                             : unavailable(text));
}

void PrefillSide::on_message(DecodeLink& link, const KeepAlive& keep_alive) {
  // Decode lists a key from its Grant on and says Committed or Aborted before it stops; the link
  // keeps the order. So a granted key that is not listed is not there.
  std::vector<HandoffKey> dropped;
  for (const auto& [key, handoff] : handoffs_) {
    const bool is_granted = handoff->state == State::kSending || handoff->state == State::kSealed;
    if (handoff->link == &link && is_granted &&
        std::find(keep_alive.live.begin(), keep_alive.live.end(), key) == keep_alive.live.end()) {
      dropped.push_back(key);
    }
  }
  for (const HandoffKey& key : dropped) {
    fail(*find(key), unavailable("decode does not know the handoff any more"));
  }
}

void PrefillSide::on_event(const PrefillMailbox::ParcelsAcked& acked) {
  Handoff* handoff = find(acked.key);
  if (handoff == nullptr || handoff->link == nullptr || handoff->link->peer != acked.peer) {
    return;
  }
  handoff->num_acked += acked.num_parcels;
  handoff->link->num_unacked -= acked.num_parcels;
  handoff->link->progress_at = now_;
  metrics_.acked_parcels.add(acked.num_parcels);
  if (handoff->state == State::kSending || acked.at <= handoff->sealed_at) {
    metrics_.acked_parcels_before_end.add(acked.num_parcels);
  }
  if (handoff->state == State::kSealed && handoff->num_acked == handoff->num_sent) {
    note_transferred(*handoff, std::max(acked.at, handoff->sealed_at));
  }
}

void PrefillSide::seek_reservations() {
  EarlyCount early;
  const std::vector<Handoff*> queue = queue_;  // a failed one leaves it
  for (Handoff* handoff : queue) {
    if (is_enough(early)) {
      return;
    }
    const bool is_due = handoff->state == State::kQueued && now_ >= handoff->retry_at;
    if (is_due ? seek_reservation(*handoff) : is_early(*handoff)) {
      add(early, *handoff);
    }
  }
}

bool PrefillSide::is_enough(const EarlyCount& early) const {
  return early.num_handoffs >= options_.num_early_reservations &&
         (early.has_refused || early.num_tokens >= options_.early_reservation_tokens);
}

void PrefillSide::add(EarlyCount& early, const Handoff& handoff) {
  ++early.num_handoffs;
  early.num_tokens += handoff.group->choices.front()->num_tokens();
  early.has_refused =
      early.has_refused || (handoff.state != State::kSending && !handoff.busy.empty());
}

/// Who waits for a link holds nothing and asks for nothing: a leader that cannot be reached must
/// not stop those behind.
bool PrefillSide::is_early(const Handoff& handoff) {
  return handoff.state != State::kReserving || handoff.is_asked;
}

/// Returns is_early(), false when the request has failed.
bool PrefillSide::seek_reservation(Handoff& handoff) {
  if (handoff.asked_at == TimePoint{}) {
    handoff.asked_at = now_;
    handoff.reached_at = now_;
  }
  const bool is_after_round = handoff.candidate == 0 && handoff.num_rounds > 0;
  if (is_after_round && now_ - handoff.reached_at > options_.times.reserve_patience) {
    fail(handoff, unavailable("no decode leader can be reached"));
    return false;
  }
  try_reserve(handoff);
  return is_early(handoff);
}

void PrefillSide::try_reserve(Handoff& handoff) {
  const std::vector<std::string>& candidates = handoff.group->decode_candidates;
  for (; handoff.candidate < candidates.size(); ++handoff.candidate) {
    const std::string& address = candidates[handoff.candidate];
    if (is_wanted_by_older(handoff, address)) {
      handoff.reached_at = now_;
      handoff.was_reached = true;
      continue;
    }
    DecodeLink* link = links_.find_or_open(address, now_);
    if (link == nullptr) {
      continue;
    }
    handoff.state = State::kReserving;
    handoff.link = link;
    handoff.is_asked = false;
    if (link->state == DecodeLink::State::kReady) {
      send_reserve(handoff);
    }
    return;
  }
  end_round(handoff);
}

bool PrefillSide::is_wanted_by_older(const Handoff& handoff, const std::string& address) const {
  for (const Handoff* older : queue_) {
    if (older == &handoff) {
      return false;
    }
    if (older->state != State::kSending && older->busy.contains(address)) {
      return true;  // the room that comes free there is the older one's
    }
  }
  return false;
}

void PrefillSide::ask_next(Handoff& handoff) {
  handoff.state = State::kQueued;
  handoff.link = nullptr;
  handoff.is_asked = false;
  ++handoff.candidate;
  if (handoff.candidate >= handoff.group->decode_candidates.size()) {
    end_round(handoff);
  }
}

void PrefillSide::end_round(Handoff& handoff) {
  handoff.state = State::kQueued;
  handoff.candidate = 0;
  if (std::exchange(handoff.was_reached, false)) {
    handoff.reached_at = now_;
  }
  const int32_t shift = std::min(handoff.num_rounds++, 6);
  const HandoffTimes::Duration delay =
      std::min(options_.times.back_off_min * (1 << shift), options_.times.back_off_max);
  // Half of it at random, so that workers that were refused together do not come back together.
  std::uniform_real_distribution<double> half(0.5, 1.0);
  const auto jittered = std::chrono::duration_cast<HandoffTimes::Duration>(delay * half(jitter_));
  handoff.retry_at = now_ + std::max(std::exchange(handoff.pause, {}), jittered);
}

void PrefillSide::send_reserve(Handoff& handoff) {
  const Sequence& first = *handoff.group->choices.front();
  const auto tokens = first.tokens();
  port_.send(handoff.link->id,
             Reserve{.key = handoff.key,
                     .prompt_ids = {tokens.begin(), tokens.end()},
                     .num_choices = static_cast<int32_t>(handoff.group->num_choices()),
                     .max_total_tokens = StopCriteria({}, options_.max_model_len)
                                             .max_total_tokens(handoff.group->sampling,
                                                               first.num_prompt_tokens())});
  handoff.is_asked = true;
}

void PrefillSide::on_computed(Sequence& sequence, TimePoint now) {
  Handoff& handoff = *find(sequence.group().key());
  if (handoff.state == State::kSending) {
    std::erase(queue_, &handoff);
    send_blocks(handoff, sequence.table(), sequence.num_computed() / kBlockTokens, now);
  }
}

void PrefillSide::send_blocks(Handoff& handoff,
                              const BlockTable& table,
                              int64_t num_blocks,
                              TimePoint now) {
  parcels_.clear();
  for (; handoff.next_block < num_blocks; ++handoff.next_block) {
    handoff.parcels.append(
        source_, table.block(handoff.next_block).id(), handoff.next_block, parcels_);
  }
  if (parcels_.empty()) {
    return;
  }
  const auto num_parcels = static_cast<int64_t>(parcels_.size());
  for (const Parcel& parcel : parcels_) {
    metrics_.sent_bytes.add(parcel.num_bytes);
    handoff.num_sent_bytes += parcel.num_bytes;
  }
  metrics_.sent_parcels.add(num_parcels);
  if (handoff.link->num_unacked == 0) {
    handoff.link->progress_at = now;
  }
  handoff.num_sent += num_parcels;
  handoff.link->num_unacked += num_parcels;
  sender_.send(handoff.link->peer, std::move(parcels_));
}

bool PrefillSide::on_first_tokens(SequenceGroup& group,
                                  const std::vector<TokenEvent>& events,
                                  TimePoint now) {
  Handoff& handoff = *find(group.key());
  const bool have_all_ended =
      std::all_of(events.begin(), events.end(), [](const TokenEvent& event) {
        return event.finish_reason.has_value();
      });
  if (have_all_ended) {
    leave_decode(handoff, "every choice ended with its first token");
    handoff.outcome = StatusCode::kOk;
    handoff.sink->on_handed_over();
    return true;
  }
  TESSERA_CHECK(handoff.state == State::kSending, "a request starts with a reservation");
  Sequence& first = *group.choices.front();
  handoff.table = std::move(first.table());
  send_blocks(handoff, handoff.table, handoff.table.num_blocks(), now);
  handoff.state = State::kSealed;
  handoff.sealed_at = now;
  port_.send(handoff.link->id,
             Seal{.key = handoff.key, .first_tokens = events, .probes = probes_of(handoff)});
  log_debug("handoff_sealed",
            "key",
            handoff.key.to_string(),
            "trace_id",
            handoff.group->trace.trace_id(),
            "at_us",
            steady_us(now));
  if (handoff.num_acked == handoff.num_sent) {
    note_transferred(handoff, now);
  }
  return true;
}

std::vector<double> PrefillSide::probes_of(const Handoff& handoff) const {
  std::vector<double> probes =
      source_.probes(handoff.table.ids(), handoff.num_held_tokens, handoff.num_prompt_tokens);
  // A model that overflows says nothing about how its latents were dealt.
  const bool are_finite =
      std::all_of(probes.begin(), probes.end(), [](double probe) { return std::isfinite(probe); });
  return are_finite ? probes : std::vector<double>();
}

void PrefillSide::note_transferred(const Handoff& handoff, TimePoint at) {
  metrics_.transfer_seconds.observe(seconds_between(handoff.sealed_at, at));
  log_debug("handoff_transferred", "key", handoff.key.to_string(), "at_us", steady_us(at));
}

void PrefillSide::on_decoded(SequenceGroup& /*group*/, TimePoint /*now*/) {
  TESSERA_CHECK(false, "a prefill worker does not decode");
}

void PrefillSide::on_group_end(SequenceGroup& group) {
  const auto entry = handoffs_.find(group.key());
  if (entry == handoffs_.end()) {
    return;
  }
  Handoff& handoff = *entry->second;
  leave_decode(handoff, "the request has ended at prefill");
  if (handoff.link != nullptr) {
    drain_parcels(handoff,
                  handoff.table.num_blocks() > 0 ? handoff.table : group.choices.front()->table());
  }
  metrics_.count_terminal(handoff.outcome);
  std::erase(queue_, &handoff);
  handoffs_.erase(entry);
}

void PrefillSide::leave_decode(Handoff& handoff, const std::string& reason) {
  const bool is_known_there = handoff.state == State::kSending || handoff.state == State::kSealed ||
                              (handoff.state == State::kReserving && handoff.is_asked);
  handoff.state = State::kDone;
  if (is_known_there) {
    port_.send(handoff.link->id, Abort{.key = handoff.key, .reason = reason});
  }
}

void PrefillSide::drain_parcels(Handoff& handoff, BlockTable& table) {
  const int64_t num_unacked = handoff.num_sent - handoff.num_acked;
  if (num_unacked == 0) {
    return;
  }
  handoff.link->num_unacked -= num_unacked;
  pinned_.pin(handoff.link->peer, handoff.key, std::move(table));
  sender_.abort(handoff.link->peer, handoff.key);
}

void PrefillSide::fail(Handoff& handoff, const Status& status) {
  log_debug("handoff_failed", "key", handoff.key.to_string(), "reason", status.to_string());
  handoff.outcome = status.code();
  host_->fail_group(*handoff.group, status);
}

PrefillSide::TimePoint PrefillSide::next_deadline() const {
  TimePoint next = links_.next_deadline();
  EarlyCount early;
  for (const Handoff* handoff : queue_) {
    if (is_enough(early)) {
      break;
    }
    if (is_early(*handoff)) {
      add(early, *handoff);
    }
    if (handoff->state == State::kQueued) {
      next = std::min(next, handoff->retry_at);
    }
  }
  return next;
}

bool PrefillSide::has_work() const {
  return !pinned_.is_empty();
}

void PrefillSide::fail_all(const Status& /*status*/) {}  // all its handoffs are live groups

void PrefillSide::shut_down(const Status& status) {
  mailbox_.set_waker({});
  links_.close_all(status);
  pinned_.clear();
}

}  // namespace tessera
