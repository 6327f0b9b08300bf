#include "server/metrics/handoff_families.h"

#include <algorithm>
#include <cctype>
#include <string>
#include <utility>

namespace tessera::metrics {
namespace {

std::string result_name(size_t code) {
  if (code == static_cast<size_t>(StatusCode::kOk)) {
    return "committed";
  }
  std::string name(status_code_name(static_cast<StatusCode>(code)));
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) {
    return static_cast<char>(std::tolower(c));
  });
  return name;
}

void add_prefill(FamilyList& list, const HandoffMetrics& handoff) {
  list.histogram("tessera_handoff_reserve_wait_seconds",
                 "Prefill: from the first Reserve to the Grant",
                 handoff.reserve_wait_seconds);
  list.histogram("tessera_handoff_transfer_seconds",
                 "Prefill: from the end of prefill to the last acknowledgement",
                 handoff.transfer_seconds);
  list.histogram("tessera_handoff_commit_wait_seconds",
                 "Prefill: from Seal to Committed",
                 handoff.commit_wait_seconds);
  list.counter("tessera_handoff_sent_bytes_total",
               "Prefill: bytes of parcels, resends not included",
               handoff.sent_bytes);
  list.counter("tessera_handoff_sent_parcels_total", "Prefill: parcels", handoff.sent_parcels);
  list.counter(
      "tessera_handoff_acked_parcels_total", "Prefill: parcels that landed", handoff.acked_parcels);
  list.counter("tessera_handoff_acked_parcels_before_end_total",
               "Prefill: of them, before their prefill had ended",
               handoff.acked_parcels_before_end);
  list.counter("tessera_handoff_failed_parcels_total",
               "Prefill: parcels refused too often",
               handoff.failed_parcels);
  list.counter("tessera_handoff_busy_answers_total",
               "Prefill: reservations that decode had no room for",
               handoff.busy_answers);
  list.histogram(
      "tessera_handoff_bytes", "Prefill: bytes of one committed handoff", handoff.handoff_bytes);
  list.histogram("tessera_handoff_parcels",
                 "Prefill: parcels of one committed handoff",
                 handoff.handoff_parcels);
  list.gauge("tessera_handoff_waiting_for_room",
             "Prefill: requests that no decode group has reserved room for",
             static_cast<double>(handoff.waiting_for_room.value()));
  list.gauge("tessera_handoff_pinned_blocks",
             "Prefill: blocks of finished prefills that decode has not committed",
             static_cast<double>(handoff.pinned_blocks.value()));
}

void add_decode(FamilyList& list, const HandoffMetrics& handoff) {
  list.histogram("tessera_handoff_landing_seconds",
                 "Decode: from Seal to landed on every rank",
                 handoff.landing_seconds);
  list.histogram("tessera_handoff_attach_wait_seconds",
                 "Decode: from Grant to the router's Attach",
                 handoff.attach_wait_seconds);
  list.histogram("tessera_handoff_first_step_seconds",
                 "Decode: from Seal to the end of the first decode step",
                 handoff.first_step_seconds);
  list.counter("tessera_handoff_busy_given_total",
               "Decode: reservations refused for lack of room",
               handoff.busy_given);
  list.gauge("tessera_handoff_reserved_blocks",
             "Decode: blocks of reservations that are not committed",
             static_cast<double>(handoff.reserved_blocks.value()));
  list.gauge("tessera_handoff_reservations",
             "Decode: reservations that are not committed",
             static_cast<double>(handoff.reservations.value()));
  list.counter("tessera_handoff_prompt_tokens_held_total",
               "Decode: prompt tokens found in the prefix cache, hence not transferred",
               handoff.prompt_tokens_held);
  list.counter("tessera_handoff_probe_mismatches_total",
               "Decode: handoffs whose columns were not those that prefill meant",
               handoff.probe_mismatches);
}

}  // namespace

void add_handoff_families(FamilyList& list, const HandoffMetrics& handoff) {
  add_prefill(list, handoff);
  add_decode(list, handoff);
  list.begin_counters("tessera_handoffs_total", "Handoffs by result");
  for (size_t code = 0; code < handoff.terminal.size(); ++code) {
    list.add({{"result", result_name(code)}}, static_cast<double>(handoff.terminal[code].value()));
  }
  list.counter("tessera_handoff_leases_expired_total",
               "Links given up because the peer was silent",
               handoff.leases_expired);
  list.counter("tessera_handoff_links_failed_total", "Links lost", handoff.links_failed);
  list.gauge("tessera_handoff_links", "Open links", static_cast<double>(handoff.links.value()));
}

}  // namespace tessera::metrics
