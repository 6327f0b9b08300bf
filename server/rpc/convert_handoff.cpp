// The messages of a link: see convert.h.
#include <cmath>
#include <string>
#include <variant>

#include "proto/tessera/common.pb.h"
#include "proto/tessera/decode.pb.h"
#include "server/rpc/convert.h"
#include "server/rpc/field_checks.h"

namespace tessera::rpc {
namespace {

using Keys = google::protobuf::RepeatedPtrField<v1::HandoffKey>;

// Prefill to decode, out.

void write(const Hello& in, v1::PrefillMessage& out) {
  v1::Hello& hello = *out.mutable_hello();
  hello.set_protocol(in.protocol);
  hello.set_epoch(in.epoch);
  hello.set_worker_name(clean_text(in.worker_name, kMaxNameBytes));
  hello.set_fingerprint(clean_text(in.fingerprint, kMaxNameBytes));
}

void write(const Reserve& in, v1::PrefillMessage& out) {
  v1::Reserve& reserve = *out.mutable_reserve();
  to_proto(in.key, *reserve.mutable_key());
  reserve.mutable_prompt_ids()->Add(in.prompt_ids.begin(), in.prompt_ids.end());
  reserve.set_num_choices(in.num_choices);
  reserve.set_max_total_tokens(in.max_total_tokens);
}

void write(const Seal& in, v1::PrefillMessage& out) {
  v1::Seal& seal = *out.mutable_seal();
  to_proto(in.key, *seal.mutable_key());
  for (const TokenEvent& event : in.first_tokens) {
    to_proto(event, *seal.add_first_tokens());
  }
  seal.mutable_probes()->Add(in.probes.begin(), in.probes.end());
}

void write(const Abort& in, v1::PrefillMessage& out) {
  v1::Abort& abort = *out.mutable_abort();
  to_proto(in.key, *abort.mutable_key());
  abort.set_reason(clean_text(in.reason, kMaxStatusBytes));
}

template <typename Message>  // both directions
void write(const KeepAlive& in, Message& out) {
  Keys& live = *out.mutable_keep_alive()->mutable_live();
  for (const HandoffKey& key : in.live) {
    to_proto(key, *live.Add());
  }
}

// Decode to prefill, out.

void write(const LandingRegion& in, v1::LandingRegion& out) {
  out.set_rank(in.rank);
  out.set_worker_address(in.worker_address);
  out.set_connection(in.connection);
  out.set_base_address(in.base_address);
  out.set_remote_key(in.remote_key);
  out.set_num_slots(in.num_slots);
  out.set_slot_bytes(in.slot_bytes);
}

void write(const Welcome& in, v1::DecodeMessage& out) {
  v1::Welcome& welcome = *out.mutable_welcome();
  welcome.set_epoch(in.epoch);
  v1::DecodeLayout& layout = *welcome.mutable_layout();
  layout.set_dealing(in.layout.dealing == DecodeLayout::Dealing::kImages
                         ? v1::DecodeLayout::DEALING_IMAGES
                         : v1::DecodeLayout::DEALING_BLOCKS);
  layout.set_num_ranks(in.layout.num_ranks);
  layout.set_num_images(in.layout.num_images);
  layout.set_window_first_tokens(in.layout.window.num_first);
  layout.set_window_last_tokens(in.layout.window.num_last);
  for (const LandingRegion& region : in.regions) {
    write(region, *welcome.add_regions());
  }
}

void write(const Grant& in, v1::DecodeMessage& out) {
  to_proto(in.key, *out.mutable_grant()->mutable_key());
  out.mutable_grant()->set_num_held_tokens(in.num_held_tokens);
}

void write(const Busy& in, v1::DecodeMessage& out) {
  to_proto(in.key, *out.mutable_busy()->mutable_key());
  out.mutable_busy()->set_retry_after_ms(in.retry_after_ms);
}

void write(const Reject& in, v1::DecodeMessage& out) {
  to_proto(in.key, *out.mutable_reject()->mutable_key());
  to_proto(in.status, *out.mutable_reject()->mutable_status());
}

void write(const Committed& in, v1::DecodeMessage& out) {
  to_proto(in.key, *out.mutable_committed()->mutable_key());
}

void write(const Aborted& in, v1::DecodeMessage& out) {
  to_proto(in.key, *out.mutable_aborted()->mutable_key());
  to_proto(in.status, *out.mutable_aborted()->mutable_status());
}

// In.

Result<Hello> read(const v1::Hello& in) {
  TESSERA_RETURN_IF_ERROR(check_bytes("hello.worker_name", in.worker_name(), kMaxNameBytes));
  TESSERA_RETURN_IF_ERROR(check_bytes("hello.fingerprint", in.fingerprint(), kMaxNameBytes));
  return Hello{in.protocol(), in.epoch(), in.worker_name(), in.fingerprint()};
}

Result<Reserve> read(const v1::Reserve& in) {
  TESSERA_RETURN_IF_ERROR(
      check_range("the number of reserve.prompt_ids", in.prompt_ids_size(), 1, kMaxPromptTokens));
  TESSERA_RETURN_IF_ERROR(check_token_ids("reserve.prompt_ids", in.prompt_ids(), kMaxPromptTokens));
  TESSERA_RETURN_IF_ERROR(check_range("reserve.num_choices", in.num_choices(), 1, kMaxChoices));
  TESSERA_RETURN_IF_ERROR(check_range(
      "reserve.max_total_tokens", in.max_total_tokens(), in.prompt_ids_size(), kMaxTotalTokens));
  Reserve out;
  out.key = from_proto(in.key());
  TESSERA_RETURN_IF_ERROR(check_key(out.key));
  out.prompt_ids.assign(in.prompt_ids().begin(), in.prompt_ids().end());
  out.num_choices = in.num_choices();
  out.max_total_tokens = in.max_total_tokens();
  return out;
}

Status check_probes(const v1::Seal& in) {
  TESSERA_RETURN_IF_ERROR(check_count("seal.probes", in.probes_size(), kMaxProbes));
  for (const double probe : in.probes()) {
    if (!std::isfinite(probe)) {
      return invalid_argument(str_cat("seal.probes holds ", probe, ", expected a finite number"));
    }
  }
  return Status::ok();
}

Result<Seal> read(const v1::Seal& in) {
  TESSERA_RETURN_IF_ERROR(
      check_range("the number of seal.first_tokens", in.first_tokens_size(), 1, kMaxChoices));
  TESSERA_RETURN_IF_ERROR(check_probes(in));
  Seal out;
  out.key = from_proto(in.key());
  for (const v1::TokenEvent& event : in.first_tokens()) {
    TESSERA_TRY(auto token, from_proto(event));
    out.first_tokens.push_back(std::move(token));
  }
  out.probes.assign(in.probes().begin(), in.probes().end());
  return out;
}

Result<Abort> read(const v1::Abort& in) {
  TESSERA_RETURN_IF_ERROR(check_bytes("abort.reason", in.reason(), kMaxStatusBytes));
  return Abort{from_proto(in.key()), in.reason()};
}

Result<KeepAlive> read(const v1::KeepAlive& in) {
  TESSERA_RETURN_IF_ERROR(check_count("keep_alive.live", in.live_size(), kMaxLiveKeys));
  KeepAlive out;
  out.live.reserve(static_cast<size_t>(in.live_size()));
  for (const v1::HandoffKey& key : in.live()) {
    out.live.push_back(from_proto(key));
  }
  return out;
}

Result<DecodeLayout> read(const v1::DecodeLayout& in) {
  TESSERA_RETURN_IF_ERROR(check_range("layout.dealing",
                                      in.dealing(),
                                      v1::DecodeLayout::DEALING_IMAGES,
                                      v1::DecodeLayout::DEALING_BLOCKS));
  TESSERA_RETURN_IF_ERROR(check_range("layout.num_ranks", in.num_ranks(), 1, kMaxRanks));
  TESSERA_RETURN_IF_ERROR(check_range("layout.num_images", in.num_images(), 1, kMaxRanks));
  TESSERA_RETURN_IF_ERROR(
      check_range("layout.window_first_tokens", in.window_first_tokens(), 0, kMaxPromptTokens));
  TESSERA_RETURN_IF_ERROR(
      check_range("layout.window_last_tokens", in.window_last_tokens(), 0, kMaxPromptTokens));
  const bool is_by_image = in.dealing() == v1::DecodeLayout::DEALING_IMAGES;
  return DecodeLayout{is_by_image ? DecodeLayout::Dealing::kImages : DecodeLayout::Dealing::kBlocks,
                      in.num_ranks(),
                      in.num_images(),
                      {in.window_first_tokens(), in.window_last_tokens()}};
}

Result<LandingRegion> read(const v1::LandingRegion& in) {
  TESSERA_RETURN_IF_ERROR(check_range("region.rank", in.rank(), 0, kMaxRanks - 1));
  TESSERA_RETURN_IF_ERROR(
      check_bytes("region.worker_address", in.worker_address(), kMaxOpaqueBytes));
  TESSERA_RETURN_IF_ERROR(check_bytes("region.remote_key", in.remote_key(), kMaxOpaqueBytes));
  TESSERA_RETURN_IF_ERROR(check_range("region.num_slots", in.num_slots(), 0, kMaxLandingSlots));
  TESSERA_RETURN_IF_ERROR(check_range("region.slot_bytes", in.slot_bytes(), 0, kMaxSlotBytes));
  LandingRegion out;
  out.rank = in.rank();
  out.worker_address = in.worker_address();
  out.connection = in.connection();
  out.base_address = in.base_address();
  out.remote_key = in.remote_key();
  out.num_slots = in.num_slots();
  out.slot_bytes = in.slot_bytes();
  return out;
}

Result<Welcome> read(const v1::Welcome& in) {
  TESSERA_RETURN_IF_ERROR(check_count("welcome.regions", in.regions_size(), kMaxRanks));
  Welcome out;
  out.epoch = in.epoch();
  TESSERA_TRY(out.layout, read(in.layout()));
  for (const v1::LandingRegion& region : in.regions()) {
    TESSERA_TRY(auto landing, read(region));
    out.regions.push_back(std::move(landing));
  }
  return out;
}

Result<Grant> read(const v1::Grant& in) {
  TESSERA_RETURN_IF_ERROR(
      check_range("grant.num_held_tokens", in.num_held_tokens(), 0, kMaxPromptTokens));
  return Grant{from_proto(in.key()), in.num_held_tokens()};
}

Result<Busy> read(const v1::Busy& in) {
  TESSERA_RETURN_IF_ERROR(
      check_range("busy.retry_after_ms", in.retry_after_ms(), 0, kMaxTimeoutMs));
  return Busy{from_proto(in.key()), in.retry_after_ms()};
}

Result<Reject> read(const v1::Reject& in) {
  TESSERA_RETURN_IF_ERROR(check_status(in.status()));
  return Reject{from_proto(in.key()), from_proto(in.status())};
}

Result<Aborted> read(const v1::Aborted& in) {
  TESSERA_RETURN_IF_ERROR(check_status(in.status()));
  return Aborted{from_proto(in.key()), from_proto(in.status())};
}

Result<Committed> read(const v1::Committed& in) {
  return Committed{from_proto(in.key())};
}

template <typename Variant, typename Message>
Result<Variant> wrap(Result<Message> message) {
  TESSERA_TRY(auto value, std::move(message));
  return Variant(std::move(value));
}

}  // namespace

void to_proto(const PrefillMessage& message, v1::PrefillMessage& out) {
  std::visit([&](const auto& value) { write(value, out); }, message);
}

void to_proto(const DecodeMessage& message, v1::DecodeMessage& out) {
  std::visit([&](const auto& value) { write(value, out); }, message);
}

Result<PrefillMessage> from_proto(const v1::PrefillMessage& message) {
  switch (message.message_case()) {
    case v1::PrefillMessage::kHello:
      return wrap<PrefillMessage>(read(message.hello()));
    case v1::PrefillMessage::kReserve:
      return wrap<PrefillMessage>(read(message.reserve()));
    case v1::PrefillMessage::kSeal:
      return wrap<PrefillMessage>(read(message.seal()));
    case v1::PrefillMessage::kAbort:
      return wrap<PrefillMessage>(read(message.abort()));
    case v1::PrefillMessage::kKeepAlive:
      return wrap<PrefillMessage>(read(message.keep_alive()));
    case v1::PrefillMessage::MESSAGE_NOT_SET:
      break;
  }
  return invalid_argument("a link message of prefill is none of the known ones");
}

Result<DecodeMessage> from_proto(const v1::DecodeMessage& message) {
  switch (message.message_case()) {
    case v1::DecodeMessage::kWelcome:
      return wrap<DecodeMessage>(read(message.welcome()));
    case v1::DecodeMessage::kGrant:
      return wrap<DecodeMessage>(read(message.grant()));
    case v1::DecodeMessage::kBusy:
      return wrap<DecodeMessage>(read(message.busy()));
    case v1::DecodeMessage::kReject:
      return wrap<DecodeMessage>(read(message.reject()));
    case v1::DecodeMessage::kCommitted:
      return wrap<DecodeMessage>(read(message.committed()));
    case v1::DecodeMessage::kAborted:
      return wrap<DecodeMessage>(read(message.aborted()));
    case v1::DecodeMessage::kKeepAlive:
      return wrap<DecodeMessage>(read(message.keep_alive()));
    case v1::DecodeMessage::MESSAGE_NOT_SET:
      break;
  }
  return invalid_argument("a link message of decode is none of the known ones");
}

}  // namespace tessera::rpc
