#include "server/router/routing_policy.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace tessera::router {
namespace {

constexpr double kAffinityBonus = 0.5;

using Views = std::vector<const WorkerView*>;

int64_t blocks_of(int64_t num_tokens) {
  return (num_tokens + kPrefixBlockTokens - 1) / kPrefixBlockTokens;
}

int64_t num_sequences(const WorkerView& worker) {
  return worker.load.num_requests_running + worker.load.num_requests_waiting +
         worker.num_placed_requests;
}

int64_t free_blocks(const WorkerView& worker) {
  return worker.load.num_blocks_free - blocks_of(worker.num_placed_tokens);
}

/// All views, the one that `rotation` points at first.
Views rotated(std::span<const WorkerView> workers, uint64_t rotation) {
  Views views;
  for (size_t i = 0; i < workers.size(); ++i) {
    views.push_back(&workers[(rotation + i) % workers.size()]);
  }
  return views;
}

Views without(const Views& views, std::span<const WorkerId> avoid) {
  Views kept;
  std::copy_if(views.begin(), views.end(), std::back_inserter(kept), [avoid](const auto* view) {
    return std::find(avoid.begin(), avoid.end(), view->id) == avoid.end();
  });
  return kept;
}

Views with_layout(const Views& views, const std::string& layout) {
  Views kept;
  std::copy_if(views.begin(), views.end(), std::back_inserter(kept), [&layout](const auto* view) {
    return view->layout_fingerprint == layout;
  });
  return kept;
}

void sort_prefill(PolicyKind policy, int64_t num_prompt_tokens, Views& views) {
  const auto cost = [&](const WorkerView* view) {
    const int64_t matched = policy == PolicyKind::kPrefixAffinity ? 0 : view->num_matched_tokens;
    return prefill_cost(*view, num_prompt_tokens) + matched;
  };
  if (policy != PolicyKind::kRoundRobin) {
    std::stable_sort(views.begin(), views.end(), [&](const auto* left, const auto* right) {
      return cost(left) < cost(right);
    });
  }
}

void sort_decode(PolicyKind policy, int64_t num_prompt_tokens, Views& views) {
  const auto cost = [&](const WorkerView* view) {
    if (policy == PolicyKind::kPrefixAffinity) {
      return decode_cost(*view, num_prompt_tokens);
    }
    WorkerView stranger = *view;
    stranger.num_matched_tokens = 0;
    return decode_cost(stranger, num_prompt_tokens);
  };
  if (policy != PolicyKind::kRoundRobin) {
    std::stable_sort(views.begin(), views.end(), [&](const auto* left, const auto* right) {
      return cost(left) < cost(right);
    });
  }
  std::stable_partition(views.begin(), views.end(), [num_prompt_tokens](const auto* view) {
    return has_room(*view, num_prompt_tokens);
  });
}

std::vector<WorkerId> ids_of(const Views& views, size_t limit) {
  std::vector<WorkerId> ids;
  for (size_t i = 0; i < std::min(views.size(), limit); ++i) {
    ids.push_back(views[i]->id);
  }
  return ids;
}

/// The decode group that takes a short prompt as it is, if there is one.
Route local_route(const RouteQuery& query, const Views& decode) {
  for (const WorkerView* view : decode) {
    const int64_t limit = std::min(query.local_prefill_max_tokens, view->max_local_prefill_tokens);
    if (query.num_prompt_tokens <= limit) {
      return {0, {view->id}, 0};
    }
  }
  return {};
}

/// The first prefill worker in order that has a decode group of its layout.
Route pair(const RouteQuery& query, const Views& prefill, const Views& decode) {
  for (const WorkerView* view : prefill) {
    const Views partners = with_layout(decode, view->layout_fingerprint);
    if (!partners.empty()) {
      return {view->id,
              ids_of(partners, static_cast<size_t>(query.max_decode_candidates)),
              view->num_matched_tokens};
    }
  }
  return {};
}

}  // namespace

int64_t prefill_cost(const WorkerView& worker, int64_t num_prompt_tokens) {
  return worker.load.num_queued_prompt_tokens + worker.num_placed_tokens + num_prompt_tokens -
         worker.num_matched_tokens;
}

double decode_cost(const WorkerView& worker, int64_t num_prompt_tokens) {
  const auto ratio = [](int64_t part, int64_t whole) {
    return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 1.0;
  };
  const double used_blocks = 1.0 - ratio(free_blocks(worker), worker.load.num_blocks_total);
  const double used_sequences = ratio(num_sequences(worker), worker.load.num_sequences_limit);
  return used_blocks + used_sequences -
         kAffinityBonus * ratio(worker.num_matched_tokens, num_prompt_tokens);
}

bool has_room(const WorkerView& worker, int64_t num_prompt_tokens) {
  return free_blocks(worker) >= blocks_of(num_prompt_tokens + 1) &&
         num_sequences(worker) < worker.load.num_sequences_limit;
}

Route choose_route(PolicyKind policy,
                   const RouteQuery& query,
                   std::span<const WorkerView> prefill,
                   std::span<const WorkerView> decode) {
  Views all_prefill = rotated(prefill, query.rotation);
  Views all_decode = rotated(decode, query.rotation);
  sort_prefill(policy, query.num_prompt_tokens, all_prefill);
  sort_decode(policy, query.num_prompt_tokens, all_decode);
  const Views good_prefill = without(all_prefill, query.avoid);
  const Views good_decode = without(all_decode, query.avoid);
  // From nobody avoided to everybody allowed.
  const std::pair<const Views&, const Views&> choices[] = {{good_prefill, good_decode},
                                                           {all_prefill, good_decode},
                                                           {good_prefill, all_decode},
                                                           {all_prefill, all_decode}};
  for (const auto& [prefill_views, decode_views] : choices) {
    Route route = local_route(query, decode_views);
    if (!route.is_found()) {
      route = pair(query, prefill_views, decode_views);
    }
    if (route.is_found()) {
      return route;
    }
  }
  return {};
}

}  // namespace tessera::router
