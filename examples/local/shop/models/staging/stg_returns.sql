-- depends_on: {{ ref('raw_returns') }}
select
    id as return_id,
    order_item_id,
    quantity,
    reason,
    returned_on
from {{ source('raw', 'returns') }}
