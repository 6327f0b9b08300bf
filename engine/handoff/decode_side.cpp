// Events, reservations and commits; decode_side_links.cpp has links and times.
#include "engine/handoff/decode_side.h"

#include <algorithm>
#include <type_traits>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/log.h"
#include "engine/base/steady_time.h"
#include "engine/base/text.h"
#include "engine/handoff/parcel_plan.h"
#include "engine/scheduler/stop_criteria.h"
#include "kernels/ops/sampling_params.h"

namespace tessera {
namespace {

constexpr int64_t kRetryAfterMs = 50;

bool contains_bad_token(const std::vector<int32_t>& ids, int64_t vocab_size) {
  return std::any_of(
      ids.begin(), ids.end(), [&](int32_t id) { return id < 0 || id >= vocab_size; });
}

}  // namespace

DecodeSide::DecodeSide(DecodeSideOptions options, Parts parts)
    : options_(std::move(options)),
      parts_(std::move(parts)),
      metrics_(parts_.metrics),
      answers_(options_.times.answer_memory, options_.max_answers) {
  TESSERA_CHECK(parts_.receivers.size() == static_cast<size_t>(options_.layout.num_ranks),
                "one receiver a rank");
}

DecodeSide::~DecodeSide() {
  TESSERA_DCHECK(reservations_.empty() && committed_.empty(), "the side was shut down");
}

void DecodeSide::bind(EngineHost& host, std::function<void()> wake) {
  host_ = &host;
  parts_.mailbox.set_waker(std::move(wake));
}

void DecodeSide::begin_turn(TimePoint now) {
  now_ = now;
  parts_.mailbox.take(events_);
  for (DecodeMailbox::Event& event : events_) {
    handle(event);
  }
  events_.clear();  // frees what they hold
  sweep_links();
  sweep_reservations();
  answers_.forget_old(now);
}

void DecodeSide::handle(DecodeMailbox::Event& event) {
  const auto visitor = [this](auto& detail) {
    using Detail = std::decay_t<decltype(detail)>;
    if constexpr (std::is_same_v<Detail, DecodeMailbox::LinkOpened>) {
      on_opened(detail);
    } else if constexpr (std::is_same_v<Detail, DecodeMailbox::LinkMessage>) {
      on_link_message(detail.link, detail.message);
    } else if constexpr (std::is_same_v<Detail, DecodeMailbox::LinkClosed>) {
      drop_link(detail.link, unavailable("the link was closed"), true);
    } else if constexpr (std::is_same_v<Detail, DecodeMailbox::Landed>) {
      on_landed(detail);
    } else if constexpr (std::is_same_v<Detail, DecodeMailbox::ConnectionFailed>) {
      on_connection_failed(detail);
    } else if constexpr (std::is_same_v<Detail, DecodeMailbox::Attached>) {
      on_attached(detail);
    } else if constexpr (std::is_same_v<Detail, DecodeMailbox::Cancelled>) {
      on_cancelled(detail.key);
    }
  };
  std::visit(visitor, event);
}

bool DecodeSide::may_start(const SequenceGroup& group) {
  return host_->num_seats_taken() + num_reserved_seats() + group.num_choices() <=
         options_.max_num_seqs;
}

void DecodeSide::on_adopted(SequenceGroup& /*group*/) {}

void DecodeSide::on_computed(Sequence& /*sequence*/, TimePoint /*now*/) {}

bool DecodeSide::on_first_tokens(SequenceGroup& /*group*/,
                                 const std::vector<TokenEvent>& /*events*/,
                                 TimePoint /*now*/) {
  return false;  // prefilled here, decoded here
}

void DecodeSide::on_decoded(SequenceGroup& group, TimePoint now) {
  const auto committed = committed_.find(group.id);
  if (committed != committed_.end()) {
    metrics_.first_step_seconds.observe(seconds_between(committed->second.sealed_at, now));
    log_debug("handoff_first_step", "key", group.key().to_string(), "at_us", steady_us(now));
  }
}

void DecodeSide::on_group_end(SequenceGroup& group) {
  const auto committed = committed_.find(group.id);
  if (committed != committed_.end() && committed->second.group == &group) {
    committed_.erase(committed);
  }
}

DecodeSide::Reservation* DecodeSide::find(const HandoffKey& key) {
  const auto found = reservations_.find(key.request);
  return found != reservations_.end() && found->second.key == key ? &found->second : nullptr;
}

void DecodeSide::on_message(LinkId id, Link& link, Reserve& reserve) {
  const HandoffKey key = reserve.key;
  if (std::optional<DecodeMessage> answer = stored_answer(id, key)) {
    send(id, std::move(*answer));
    return;
  }
  end_lower_attempt(key);
  if (is_draining_.load()) {
    send(id, Reject{key, unavailable("the decode group is draining")});
    return;
  }
  const RoomNeeded room{
      .num_prompt_tokens = static_cast<int64_t>(reserve.prompt_ids.size()),
      // A prefill worker may allow longer sequences: they end here.
      .max_total_tokens = std::min(reserve.max_total_tokens, options_.max_model_len),
      .num_choices = reserve.num_choices,
      .num_landing_blocks =
          num_other_images(options_.layout, static_cast<int64_t>(reserve.prompt_ids.size()))};
  Status status = check_reserve(reserve, room);
  if (!status.is_ok()) {
    log_debug("handoff_rejected", "key", key.to_string(), "reason", status.to_string());
    send(id, Reject{key, std::move(status)});
    return;
  }
  admit(id, link, reserve, room);
}

std::optional<DecodeMessage> DecodeSide::stored_answer(LinkId id, const HandoffKey& key) {
  const Status late{StatusCode::kAborted, "a later attempt of the request is known"};
  const auto reservation = reservations_.find(key.request);
  if (reservation != reservations_.end()) {
    const Reservation& present = reservation->second;
    if (present.key.attempt > key.attempt) {
      return Reject{key, late};
    }
    if (present.key == key) {
      return present.link == id ? DecodeMessage(Grant{key, present.num_held_tokens})
                                : DecodeMessage(Reject{
                                      key, {StatusCode::kAborted, "another worker has this key"}});
    }
  }
  const auto committed = committed_.find(key.request);
  if (committed != committed_.end() && committed->second.key >= key) {
    return committed->second.key == key ? DecodeMessage(tessera::Committed{key})
                                        : DecodeMessage(Reject{key, late});
  }
  const AnswerMemory::Answer* answer = answers_.find(key.request);
  if (answer == nullptr || answer->attempt < key.attempt) {
    return std::nullopt;
  }
  if (answer->attempt > key.attempt) {
    return Reject{key, late};
  }
  return answer->status.is_ok() ? DecodeMessage(tessera::Committed{key})
                                : DecodeMessage(Aborted{key, answer->status});
}

void DecodeSide::end_lower_attempt(const HandoffKey& key) {
  const Status status{StatusCode::kAborted, "a later attempt of the request has come"};
  const auto reservation = reservations_.find(key.request);
  if (reservation != reservations_.end()) {
    abort(reservation->second, status, Tell::kBoth);
  }
  const auto committed = committed_.find(key.request);
  if (committed != committed_.end()) {
    host_->fail_group(*committed->second.group, status);
  }
}

Status DecodeSide::check_reserve(const Reserve& reserve, const RoomNeeded& room) const {
  TESSERA_RETURN_IF_ERROR(check_room(room, options_, host_->allocator().num_blocks()));
  if (contains_bad_token(reserve.prompt_ids, options_.vocab_size)) {
    return invalid_argument(
        str_cat("the prompt names a token that is not in ", options_.vocab_size));
  }
  return Status::ok();
}

void DecodeSide::admit(LinkId id, Link& link, Reserve& reserve, const RoomNeeded& room) {
  Reservation reservation;
  reservation.key = reserve.key;
  reservation.link = id;
  reservation.room = room;
  reservation.prompt_ids = std::move(reserve.prompt_ids);
  reservation.has_landed.assign(parts_.receivers.size(), false);
  reservation.granted_at = now_;
  BlockTable& table = reservation.prompt.table;
  table.reserve(room.num_prompt_blocks());
  if (PrefixCache* cache = host_->prefix_cache()) {
    cache->take_prefix(reservation.prompt_ids, table);
  }
  const int64_t num_held = table.num_blocks();
  BlockAllocator& allocator = host_->allocator();
  const int64_t num_seats = host_->num_seats_taken() + num_reserved_seats() + reserve.num_choices;
  if (num_seats > options_.max_num_seqs ||
      !fits_now(room, num_held, num_promised_blocks(), options_, allocator)) {
    metrics_.busy_given.add();
    send(id, Busy{reserve.key, kRetryAfterMs});
    return;
  }
  for (int64_t i = num_held; i < room.num_prompt_blocks(); ++i) {
    table.append(allocator.try_allocate(i));
  }
  for (int64_t i = 0; i < room.num_landing_blocks; ++i) {
    reservation.prompt.other_images.push_back(allocator.try_allocate(room.num_prompt_blocks() + i));
  }
  for (int64_t i = 0; i < room.num_copies(); ++i) {
    Block copy = allocator.try_allocate(room.num_prompt_blocks() - 1);
    if (copy.is_valid()) {  // a stripe may lack one: the choice then ends as a preempted one
      reservation.copies.push_back(std::move(copy));
    }
  }
  reservation.num_held_tokens = num_held * kBlockTokens;
  metrics_.prompt_tokens_held.add(reservation.num_held_tokens);
  metrics_.reserved_blocks.add(reservation.num_blocks());
  metrics_.reservations.add(1);
  const HandoffKey key = reservation.key;
  log_debug("handoff_reserved",
            "key",
            key.to_string(),
            "blocks",
            reservation.num_blocks(),
            "held_blocks",
            num_held);
  Reservation& kept = reservations_.emplace(key.request, std::move(reservation)).first->second;
  expect_blocks(link, kept);
  parts_.mailbox.expect_attach(key);  // before anybody can hear of the grant
  send(id, Grant{key, kept.num_held_tokens});
}

void DecodeSide::expect_blocks(const Link& link, const Reservation& reservation) {
  const auto ids = reservation.prompt.table.ids();
  const DecodeLayout& layout = options_.layout;
  const bool is_striped = layout.dealing == DecodeLayout::Dealing::kBlocks;
  const int64_t num_held = reservation.num_held_tokens / kBlockTokens;
  for (int32_t rank = 0; rank < layout.num_ranks; ++rank) {
    std::vector<int32_t> expected(ids.size(), -1);
    for (auto i = static_cast<size_t>(num_held); i < ids.size(); ++i) {
      // A rank of a striped group keeps every num_ranks-th block only.
      const int32_t local_id = is_striped ? ids[i] / layout.num_ranks : ids[i];
      expected[i] = is_dealt_to(layout, rank, static_cast<int64_t>(i)) ? local_id : -1;
    }
    for (const Block& image : reservation.prompt.other_images) {
      expected.push_back(image.id());
    }
    const auto index = static_cast<size_t>(rank);
    parts_.receivers[index]->expect(link.connections[index], reservation.key, std::move(expected));
  }
}

int64_t DecodeSide::num_promised_blocks() const {
  int64_t num_blocks = expected_growth(host_->running(), options_);
  for (const auto& [request, reservation] : reservations_) {
    num_blocks += reservation.room.num_growth_blocks(options_.growth_blocks);
  }
  return num_blocks;
}

int64_t DecodeSide::num_reserved_seats() const {
  int64_t num_seats = 0;
  for (const auto& [request, reservation] : reservations_) {
    num_seats += reservation.room.num_choices;
  }
  return num_seats;
}

void DecodeSide::on_message(LinkId id, Link& /*link*/, Seal& seal) {
  Reservation* reservation = find(seal.key);
  if (reservation == nullptr || reservation->link != id) {
    if (std::optional<DecodeMessage> answer = stored_answer(id, seal.key)) {
      send(id, std::move(*answer));
    } else {
      send(id, Aborted{seal.key, not_found("no such reservation")});
    }
    return;
  }
  if (!reservation->seal) {
    reservation->seal = std::move(seal);
    reservation->sealed_at = now_;
    try_commit(*reservation);
  }
}

void DecodeSide::on_message(LinkId id, Link& /*link*/, const Abort& abort) {
  Reservation* reservation = find(abort.key);
  if (reservation != nullptr && reservation->link == id) {
    this->abort(*reservation, unavailable(str_cat("prefill: ", abort.reason)), Tell::kRouter);
  }
}

void DecodeSide::on_message(LinkId id, Link& /*link*/, const KeepAlive& keep_alive) {
  // Prefill lists a key from its Reserve on and says Abort before it stops; the link keeps the
  // order. So a key that is not listed is not there.
  std::vector<HandoffKey> dropped;
  for (const auto& [request, reservation] : reservations_) {
    const auto& live = keep_alive.live;
    if (reservation.link == id &&
        std::find(live.begin(), live.end(), reservation.key) == live.end()) {
      dropped.push_back(reservation.key);
    }
  }
  for (const HandoffKey& key : dropped) {
    abort(*find(key), unavailable("prefill does not know the handoff any more"), Tell::kBoth);
  }
}

void DecodeSide::on_attached(DecodeMailbox::Attached& attached) {
  Reservation* reservation = find(attached.request.key);
  if (reservation == nullptr) {  // it ended while the event was on its way
    const AnswerMemory::Answer* answer = answers_.find(attached.request.key.request);
    attached.sink->on_error(unavailable(str_cat(
        "the reservation is gone: ", answer == nullptr ? "forgotten" : answer->status.message())));
    return;
  }
  metrics_.attach_wait_seconds.observe(seconds_between(reservation->granted_at, now_));
  reservation->attach = std::move(attached.request);
  reservation->sink = std::move(attached.sink);
  try_commit(*reservation);
}

void DecodeSide::on_cancelled(const HandoffKey& key) {
  const Status status{StatusCode::kCancelled, "the router has cancelled the request"};
  if (Reservation* reservation = find(key)) {
    abort(*reservation, status, Tell::kPrefill);
    return;
  }
  const auto committed = committed_.find(key.request);
  if (committed != committed_.end() && committed->second.key == key) {
    host_->end_group(*committed->second.group);
    return;
  }
  answers_.remember(key, status, now_);  // a Reserve that is still on its way is refused
}

void DecodeSide::on_landed(const DecodeMailbox::Landed& landed) {
  Reservation* reservation = find(landed.key);
  if (reservation == nullptr) {
    return;
  }
  reservation->has_landed[static_cast<size_t>(landed.rank)] = true;
  try_commit(*reservation);
}

void DecodeSide::try_commit(Reservation& reservation) {
  const bool has_all_landed = std::all_of(reservation.has_landed.begin(),
                                          reservation.has_landed.end(),
                                          [](bool has_landed) { return has_landed; });
  if (!has_all_landed || !reservation.seal || !reservation.attach) {
    return;
  }
  const Status status = check_commit(reservation);
  if (!status.is_ok()) {
    abort(reservation, status, Tell::kBoth);
    return;
  }
  if (!host_->try_claim(reservation.key)) {
    abort(reservation,
          {StatusCode::kAlreadyExists, "a request with this key is being computed here"},
          Tell::kBoth);
    return;
  }
  commit(reservation);
}

Status DecodeSide::check_commit(const Reservation& reservation) const {
  const std::vector<TokenEvent>& first = reservation.seal->first_tokens;
  const AttachRequest& attach = *reservation.attach;
  const auto num_choices = static_cast<size_t>(reservation.room.num_choices);
  if (first.size() != num_choices || static_cast<size_t>(attach.num_choices) != num_choices) {
    return invalid_argument(str_cat("n is ",
                                    num_choices,
                                    " in Reserve, ",
                                    first.size(),
                                    " in Seal, ",
                                    attach.num_choices,
                                    " in Attach"));
  }
  const int64_t num_prompt = reservation.room.num_prompt_tokens - attach.num_replayed_tokens;
  if (attach.first_choice < 0 || attach.num_replayed_tokens < 0 || num_prompt < 1) {
    return invalid_argument(str_cat("first_choice ",
                                    attach.first_choice,
                                    " and num_replayed_tokens ",
                                    attach.num_replayed_tokens,
                                    " with a prompt of ",
                                    reservation.room.num_prompt_tokens));
  }
  TESSERA_RETURN_IF_ERROR(attach.sampling.validate(options_.vocab_size));
  if (attach.sampling.num_top_logprobs > kernels::kMaxTopLogprobs) {
    return invalid_argument(str_cat("num_top_logprobs is ",
                                    attach.sampling.num_top_logprobs,
                                    ", at most ",
                                    kernels::kMaxTopLogprobs));
  }
  bool have_all_ended = true;
  for (size_t i = 0; i < num_choices; ++i) {
    const TokenEvent& event = first[i];
    have_all_ended = have_all_ended && event.finish_reason.has_value();
    if (event.choice != attach.first_choice + static_cast<int32_t>(i) ||
        event.index != attach.num_replayed_tokens || event.token_id < 0 ||
        event.token_id >= options_.vocab_size) {
      return invalid_argument(str_cat("first token ", i, " does not fit the request"));
    }
  }
  if (have_all_ended) {
    return invalid_argument("every choice has ended: nothing to decode");
  }
  return check_probes(reservation);
}

Status DecodeSide::check_probes(const Reservation& reservation) const {
  if (!parts_.check_probes || reservation.seal->probes.empty()) {
    return Status::ok();
  }
  Status status = parts_.check_probes(reservation.seal->probes,
                                      {.block_ids = reservation.prompt.table.ids(),
                                       .begin = reservation.num_held_tokens,
                                       .end = reservation.room.num_prompt_tokens});
  if (!status.is_ok()) {
    metrics_.probe_mismatches.add();
    log_warning("probe_mismatch", "key", reservation.key.to_string(), "reason", status.to_string());
  }
  return status;
}

void DecodeSide::commit(Reservation& reservation) {
  const HandoffKey key = reservation.key;
  AttachRequest& attach = *reservation.attach;
  // Room was promised for so many, whatever the workers' max_model_len are.
  attach.sampling.max_tokens =
      std::min(attach.sampling.max_tokens,
               reservation.room.max_total_tokens -
                   (reservation.room.num_prompt_tokens - attach.num_replayed_tokens));
  const std::vector<TokenEvent>& first = reservation.seal->first_tokens;
  auto group = make_sequence_group({.id = key.request,
                                    .prompt_ids = std::move(reservation.prompt_ids),
                                    .sampling = std::move(attach.sampling),
                                    .num_choices = attach.num_choices,
                                    .first_choice = attach.first_choice,
                                    .num_replayed_tokens = attach.num_replayed_tokens,
                                    .deadline = attach.deadline,
                                    .trace = attach.trace},
                                   std::move(reservation.sink));
  group->attempt = key.attempt;
  group->num_cached_tokens = first.front().num_cached_tokens;
  if (!options_.publishes_own_blocks) {
    group->max_published_tokens = reservation.room.num_prompt_tokens;
  }
  std::vector<bool> ended;
  for (size_t i = 0; i < first.size(); ++i) {
    group->choices[i]->append_token(first[i].token_id);
    ended.push_back(first[i].finish_reason.has_value());
  }
  metrics_.landing_seconds.observe(seconds_between(reservation.sealed_at, now_));
  committed_[key.request] = {key, group.get(), reservation.sealed_at};
  metrics_.reserved_blocks.add(-reservation.num_blocks());
  LandedPrompt prompt = std::move(reservation.prompt);
  const LinkId link = reservation.link;
  release(reservation);
  answers_.remember(key, Status::ok(), now_);
  metrics_.count_terminal(StatusCode::kOk);
  log_debug("handoff_committed",
            "key",
            key.to_string(),
            "trace_id",
            group->trace.trace_id(),
            "at_us",
            steady_us(now_));
  send(link, tessera::Committed{key});
  host_->adopt_running(std::move(group), std::move(prompt), ended);
}

void DecodeSide::abort(Reservation& reservation, const Status& status, Tell tell) {
  const HandoffKey key = reservation.key;
  const LinkId link = reservation.link;
  const std::shared_ptr<TokenSink> sink = std::move(reservation.sink);
  log_debug("handoff_aborted", "key", key.to_string(), "reason", status.to_string());
  metrics_.reserved_blocks.add(-reservation.num_blocks());
  release(reservation);
  answers_.remember(key, status, now_);
  metrics_.count_terminal(status.code());
  if (tell == Tell::kPrefill || tell == Tell::kBoth) {
    send(link, Aborted{key, status});
  }
  if (sink != nullptr && (tell == Tell::kRouter || tell == Tell::kBoth)) {
    sink->on_error(status);
  }
}

void DecodeSide::release(Reservation& reservation) {
  // First the receivers: after forget() no copy into the blocks runs, so they may be freed.
  for (KvReceiver* receiver : parts_.receivers) {
    receiver->forget(reservation.key);
  }
  parts_.mailbox.forget_attach(reservation.key);
  metrics_.reservations.add(-1);
  const RequestId request = reservation.key.request;
  reservations_.erase(request);
}

}  // namespace tessera
