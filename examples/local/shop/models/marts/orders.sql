with items as (
    select
        order_id,
        sum(sold_quantity) as sold_quantity,
        {{ euros('sum(gross_amount)') }} as gross_amount,
        {{ euros('sum(net_amount)') }} as net_amount
    from {{ ref('int_order_items') }}
    group by order_id
)

select
    orders.order_id,
    orders.customer_id,
    orders.ordered_at,
    orders.ordered_on,
    orders.status,
    orders.channel,
    items.sold_quantity,
    items.gross_amount,
    items.net_amount,
    case when orders.status = 'cancelled' then 0 else orders.shipping_amount end as shipping_amount,
    coalesce(payments.paid_amount, 0) as paid_amount,
    payments.last_paid_at
from {{ ref('stg_orders') }} as orders
inner join items on orders.order_id = items.order_id
left join {{ ref('int_order_payments') }} as payments on orders.order_id = payments.order_id
where orders.ordered_on <= {{ cut_off_day() }}
