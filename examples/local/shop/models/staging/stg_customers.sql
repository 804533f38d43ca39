-- depends_on: {{ ref('raw_customers') }}
select
    id as customer_id,
    first_name,
    email,
    country,
    signed_up_on
from {{ source('raw', 'customers') }}
